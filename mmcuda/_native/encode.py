"""The inputs of a loss, checked, and encoded as the kernels read them or the reference does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcuda._native import ops
from mmcuda._native.checks import check_device
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, cells, sort_values

WORD = 32  # cells of a multi-hot label in one word
INTERVAL, GAUSSIAN = 0, -1  # in Relations.words


class LossInputs(NamedTuple):
    """Anchors against keys, and what relates them: attributes, or a mask instead of them."""

    anchors: Tensor  # [..., D], N in all
    keys: Tensor | None  # [..., D], M in all; None: the anchors themselves
    attributes: Sequence[Attribute]
    mask: Tensor | None  # [B, B'] of the samples
    views: int  # anchors (and keys) of a sample, adjacent; 1 where anchors and keys are different samples
    anchor_offset: int | None  # anchor i is key i + anchor_offset; 0 in self-contrast; None: no anchor is a key

    @property
    def anchor_count(self) -> int:
        """Number of anchors, N."""
        return math.prod(self.anchors.shape[:-1])

    @property
    def weights(self) -> list[float]:
        """Weight of each attribute; a mask's is 1."""
        return [attribute.weight for attribute in self.attributes] if self.mask is None else [1.0]


def check_attributes(
    attributes: object, anchors: tuple[str, int], keys: tuple[str, int] | None, owner: str, like: Tensor
) -> None:
    """Check that attributes have a value of each anchor, and of each key where those are other samples.

    ``anchors`` and ``keys`` hold how values are counted, such as "sample, B", and how many there must be; the values
    must be on the device of ``like``, the argument ``owner``.
    """
    if not isinstance(attributes, Sequence):
        raise TypeError(f"attributes must be a list of Attribute, got {type(attributes).__name__}")
    for index, attribute in enumerate(attributes):
        if not isinstance(attribute, Attribute):
            raise TypeError(f"attributes[{index}] must be an Attribute, got {type(attribute).__name__}")
        _check_count(attribute.name, attribute.values, anchors)
        check_device(attribute.name, attribute.values, owner, like)
        if keys is None:
            if attribute.keys is not None:
                raise ValueError(f"keys of {attribute.name} must be None where anchors and keys are the same samples")
        elif attribute.keys is None:
            raise ValueError(f"keys of {attribute.name} must be given: the keys are other samples than the anchors")
        else:
            _check_count(f"keys of {attribute.name}", attribute.keys, keys)


def _check_count(name: str, values: Tensor, wanted: tuple[str, int]) -> None:
    if values.shape[0] != wanted[1]:
        raise ValueError(f"{name} must have one value per {wanted[0]} = {wanted[1]}, got {values.shape[0]}")


def for_kernels(inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
    """Return anchors and keys in a dtype that kernels read: on the CPU float16 becomes float32."""
    if inputs.anchors.dtype != torch.float16 or not inputs.anchors.is_cpu:
        return inputs.anchors, inputs.keys
    return inputs.anchors.float(), None if inputs.keys is None else inputs.keys.float()


def for_reference(inputs: LossInputs) -> tuple[Tensor, Tensor]:
    """Return anchors and keys, half precision as float32."""
    anchors = inputs.anchors.flatten(0, -2).to(torch.promote_types(inputs.anchors.dtype, torch.float32))
    return anchors, anchors if inputs.keys is None else inputs.keys.flatten(0, -2).to(anchors.dtype)


def instance_labels(samples: int, different: bool, device: torch.device) -> Attribute:
    """Return labels under which only the own views are positives or, between different samples, the same number."""
    numbers = torch.arange(samples, device=device)
    return Attribute(numbers, Equal(), keys=numbers if different else None)


def dense_relations(inputs: LossInputs) -> list[Tensor]:
    """Return each relation as the reference reads it, [N, M]."""
    relations = [attribute.dense() for attribute in inputs.attributes] if inputs.mask is None else [inputs.mask]
    if inputs.views > 1:
        relations = [r.repeat_interleave(inputs.views, 0).repeat_interleave(inputs.views, 1) for r in relations]
    if inputs.keys is not None and inputs.anchor_offset is not None:
        relations = [r[inputs.anchor_offset : inputs.anchor_offset + inputs.anchor_count] for r in relations]
    return relations


def contrastive_arguments(
    inputs: LossInputs, temperature: float | Tensor, positives: str, denominator: str, symmetric: bool, reduction: str
) -> tuple[Any, ...]:
    """Return the arguments of the operator ``contrastive_fwd``."""
    anchors, keys = for_kernels(inputs)
    if not isinstance(temperature, Tensor):
        temperature = torch.scalar_tensor(temperature, dtype=torch.float64, device=anchors.device)
    elif temperature.dtype in (torch.float16, torch.bfloat16):
        temperature = temperature.float()
    with_gradient = torch.is_grad_enabled() and (
        anchors.requires_grad or temperature.requires_grad or (keys is not None and keys.requires_grad)
    )
    settings = (inputs.anchor_offset, positives, denominator, symmetric, reduction, ops.allow_tf32(), with_gradient)
    return anchors, keys, temperature, *encoded_relations(inputs), *settings


def pair_margin_arguments(inputs: LossInputs, margin: float) -> tuple[Any, ...]:
    """Return the arguments of the operator ``pair_margin_fwd``."""
    intervals, relation_data, words, _, weights = encoded_relations(inputs)
    return (
        *for_kernels(inputs),
        intervals,
        relation_data,
        words,
        weights,
        inputs.anchor_offset,
        margin,
        ops.allow_tf32(),
    )


class Relations(NamedTuple):
    """K attributes as the kernels read them; a mask is one more, the last."""

    intervals: Tensor  # [K, 3, L] int32 from label_intervals, per item
    relation_data: Tensor | None  # [U, 2, L] int32: what the attributes have beside intervals, see relation_data()
    words: list[int]  # K: INTERVAL, GAUSSIAN, or how many words of bits an overlap has
    mask: Tensor | None  # [B, B'] dense relation in the dtype of the computation
    weights: list[float]  # K (+ 1)


def encoded_relations(inputs: LossInputs) -> Relations:
    """Return the relations as the kernels read them."""
    if inputs.mask is not None:
        mask = inputs.mask.to(torch.promote_types(inputs.anchors.dtype, torch.float32))
        items = inputs.anchor_count + (0 if inputs.keys is None else math.prod(inputs.keys.shape[:-1]))
        intervals = torch.empty((0, 3, items), dtype=torch.int32, device=mask.device)
        return Relations(intervals, None, [], mask, [1.0])
    attributes = inputs.attributes
    values = [kernel_sort_values(attribute) for attribute in attributes]
    tolerances = [attribute.relation.tolerance for attribute in attributes]
    intervals = _with_anchors(ops.operators.label_intervals(values, tolerances, inputs.views), inputs)
    units = [relation_data(attribute) for attribute in attributes]
    present = [_with_anchors(_of_items(each, inputs.views), inputs) for each in units if each is not None]
    words = [INTERVAL if each is None else GAUSSIAN if each.is_floating_point() else each.shape[0] for each in units]
    # A unit is [2, L] int32: a word of bits and of which are known, or the L float64 of a Gaussian.
    data = [each.view(torch.int32).view(1, 2, -1) if each.is_floating_point() else each for each in present]
    return Relations(intervals, torch.cat(data) if data else None, words, None, inputs.weights)


def _of_items(values: Tensor, views: int) -> Tensor:
    """Repeat what a sample has, along the last dimension, for each of its views."""
    return values.repeat_interleave(views, -1) if views > 1 else values


def _with_anchors(values: Tensor, inputs: LossInputs) -> Tensor:
    """Put the anchors that are keys in front of these, along the last dimension."""
    if inputs.keys is None or inputs.anchor_offset is None:
        return values
    return torch.cat([values[..., inputs.anchor_offset : inputs.anchor_offset + inputs.anchor_count], values], -1)


def kernel_sort_values(attribute: Attribute) -> Tensor:
    """Return what the kernels sort, [L], the keys' behind the anchors': int64 with -1 = missing, or float64."""
    values = _all_values(attribute)
    if isinstance(attribute.relation, Overlap):
        return torch.arange(len(values), device=values.device)
    return sort_values(values, attribute.relation)


def relation_data(attribute: Attribute) -> Tensor | None:
    """Return what the kernels need beside intervals to compute the relation, the keys' behind the anchors'.

    Rbf: [L] float64 u with relation 2^-((u_i - u_j)^2) where the intervals relate i and j. Overlap: [W, 2, L] int32
    words of bits, one a cell: what is 1, and what is known. Otherwise None.
    """
    relation = attribute.relation
    if isinstance(relation, Rbf):
        # Only differences of related values matter, at most 6 sigma: larger gaps are closed, so that the numbers
        # stay small and keep their digits.
        ordered, order = sort_values(_all_values(attribute), relation).sort()
        gaps = ordered.diff().div(relation.sigma * math.sqrt(2 * math.log(2))).nan_to_num(8.0).clamp(max=8.0)
        return torch.zeros_like(ordered).scatter_(0, order[1:], gaps.cumsum(0))
    if isinstance(relation, Overlap):
        return torch.stack([_words(one) for one in cells(_all_values(attribute))]).permute(2, 0, 1).contiguous()
    return None


def _all_values(attribute: Attribute) -> Tensor:
    return attribute.values if attribute.keys is None else torch.cat([attribute.values, attribute.keys])


def _words(cells: Tensor) -> Tensor:
    """Pack bool [L, C] into int32 words [L, W]: cell c is bit c % 32 of word c // 32."""
    padded = torch.nn.functional.pad(cells, (0, -cells.shape[1] % WORD))
    bits = 1 << torch.arange(WORD, dtype=torch.int32, device=cells.device)
    return (padded.view(len(cells), -1, WORD) * bits).sum(2, dtype=torch.int32)

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
    """Rows against columns, and what relates them: attributes, or a mask instead of them."""

    rows: Tensor  # [..., D] anchors, N in all
    columns: Tensor | None  # [..., D], M in all; None: the rows themselves
    attributes: Sequence[Attribute]
    mask: Tensor | None  # [B, B'] of the samples
    views: int  # rows (and columns) of a sample, adjacent; 1 where rows and columns are different samples
    self_offset: int | None  # row i is column i + self_offset; 0 in self-contrast; None: no row is a column

    @property
    def anchors(self) -> int:
        """Number of rows, N."""
        return math.prod(self.rows.shape[:-1])

    @property
    def weights(self) -> list[float]:
        """Weight of each attribute; a mask's is 1."""
        return [attribute.weight for attribute in self.attributes] if self.mask is None else [1.0]


def check_attributes(
    attributes: object, rows: tuple[str, int], columns: tuple[str, int] | None, owner: str, like: Tensor
) -> None:
    """Check that attributes have a value of each row, and of each column where those are other samples.

    ``rows`` and ``columns`` hold how values are counted, such as "sample, B", and how many there must be; the values
    must be on the device of ``like``, the argument ``owner``.
    """
    if not isinstance(attributes, Sequence):
        raise TypeError(f"attributes must be a list of Attribute, got {type(attributes).__name__}")
    for index, attribute in enumerate(attributes):
        if not isinstance(attribute, Attribute):
            raise TypeError(f"attributes[{index}] must be an Attribute, got {type(attribute).__name__}")
        _check_count(attribute.name, attribute.values, rows)
        check_device(attribute.name, attribute.values, owner, like)
        if columns is None:
            if attribute.columns is not None:
                raise ValueError(
                    f"columns of {attribute.name} must be None where rows and columns are the same samples"
                )
        elif attribute.columns is None:
            raise ValueError(f"columns of {attribute.name} must be given: the columns are other samples than the rows")
        else:
            _check_count(f"columns of {attribute.name}", attribute.columns, columns)


def _check_count(name: str, values: Tensor, wanted: tuple[str, int]) -> None:
    if values.shape[0] != wanted[1]:
        raise ValueError(f"{name} must have one value per {wanted[0]} = {wanted[1]}, got {values.shape[0]}")


def for_kernels(inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
    """Return rows and columns in a dtype that kernels read: on the CPU float16 becomes float32."""
    if inputs.rows.dtype != torch.float16 or not inputs.rows.is_cpu:
        return inputs.rows, inputs.columns
    return inputs.rows.float(), None if inputs.columns is None else inputs.columns.float()


def for_reference(inputs: LossInputs) -> tuple[Tensor, Tensor]:
    """Return rows and columns, half precision as float32."""
    rows = inputs.rows.flatten(0, -2).to(torch.promote_types(inputs.rows.dtype, torch.float32))
    return rows, rows if inputs.columns is None else inputs.columns.flatten(0, -2).to(rows.dtype)


def own_views(samples: int, different: bool, device: torch.device) -> Attribute:
    """Return labels under which only the own views are positives or, between different samples, the same number."""
    numbers = torch.arange(samples, device=device)
    return Attribute(numbers, Equal(), columns=numbers if different else None)


def dense_relations(inputs: LossInputs) -> list[Tensor]:
    """Return each relation as the reference reads it, [N, M]."""
    relations = [attribute.dense() for attribute in inputs.attributes] if inputs.mask is None else [inputs.mask]
    if inputs.views > 1:
        relations = [r.repeat_interleave(inputs.views, 0).repeat_interleave(inputs.views, 1) for r in relations]
    if inputs.columns is not None and inputs.self_offset is not None:
        relations = [r[inputs.self_offset : inputs.self_offset + inputs.anchors] for r in relations]
    return relations


def contrastive_arguments(
    inputs: LossInputs, temperature: float | Tensor, positives: str, denominator: str, both_ways: bool, reduction: str
) -> tuple[Any, ...]:
    """Return the arguments of the operator ``contrastive_fwd``."""
    rows, columns = for_kernels(inputs)
    if not isinstance(temperature, Tensor):
        temperature = torch.scalar_tensor(temperature, dtype=torch.float64, device=rows.device)
    elif temperature.dtype in (torch.float16, torch.bfloat16):
        temperature = temperature.float()
    with_gradient = torch.is_grad_enabled() and (
        rows.requires_grad or temperature.requires_grad or (columns is not None and columns.requires_grad)
    )
    settings = (inputs.self_offset, positives, denominator, both_ways, reduction, ops.allow_tf32(), with_gradient)
    return rows, columns, temperature, *encoded_relations(inputs), *settings


def pair_margin_arguments(inputs: LossInputs, margin: float) -> tuple[Any, ...]:
    """Return the arguments of the operator ``pair_margin_fwd``."""
    ranks, relation_data, words, _, weights = encoded_relations(inputs)
    return *for_kernels(inputs), ranks, relation_data, words, weights, inputs.self_offset, margin, ops.allow_tf32()


class Relations(NamedTuple):
    """K attributes as the kernels read them; a mask is one more, the last."""

    ranks: Tensor  # [K, 3, L] int32 from label_ranks, per item
    relation_data: Tensor | None  # [U, 2, L] int32: what the attributes have beside ranks, see relation_data()
    words: list[int]  # K: INTERVAL, GAUSSIAN, or how many words of bits an overlap has
    mask: Tensor | None  # [B, B'] dense relation in the dtype of the computation
    weights: list[float]  # K (+ 1)


def encoded_relations(inputs: LossInputs) -> Relations:
    """Return the relations as the kernels read them."""
    if inputs.mask is not None:
        mask = inputs.mask.to(torch.promote_types(inputs.rows.dtype, torch.float32))
        items = inputs.anchors + (0 if inputs.columns is None else math.prod(inputs.columns.shape[:-1]))
        ranks = torch.empty((0, 3, items), dtype=torch.int32, device=mask.device)
        return Relations(ranks, None, [], mask, [1.0])
    attributes = inputs.attributes
    values = [kernel_sort_values(attribute) for attribute in attributes]
    tolerances = [attribute.relation.tolerance for attribute in attributes]
    ranks = _with_rows(ops.operators.label_ranks(values, tolerances, inputs.views), inputs)
    units = [relation_data(attribute) for attribute in attributes]
    present = [_with_rows(_of_items(each, inputs.views), inputs) for each in units if each is not None]
    words = [INTERVAL if each is None else GAUSSIAN if each.is_floating_point() else each.shape[0] for each in units]
    # A unit is [2, L] int32: a word of bits and of which are known, or the L float64 of a Gaussian.
    data = [each.view(torch.int32).view(1, 2, -1) if each.is_floating_point() else each for each in present]
    return Relations(ranks, torch.cat(data) if data else None, words, None, inputs.weights)


def _of_items(values: Tensor, views: int) -> Tensor:
    """Repeat what a sample has, along the last dimension, for each of its views."""
    return values.repeat_interleave(views, -1) if views > 1 else values


def _with_rows(values: Tensor, inputs: LossInputs) -> Tensor:
    """Put the rows that are columns in front of these, along the last dimension."""
    if inputs.columns is None or inputs.self_offset is None:
        return values
    return torch.cat([values[..., inputs.self_offset : inputs.self_offset + inputs.anchors], values], -1)


def kernel_sort_values(attribute: Attribute) -> Tensor:
    """Return what the kernels sort, [L], the columns' behind the rows': int64 with -1 = missing, or float64."""
    values = _all_values(attribute)
    if isinstance(attribute.relation, Overlap):
        return torch.arange(len(values), device=values.device)
    return sort_values(values, attribute.relation)


def relation_data(attribute: Attribute) -> Tensor | None:
    """Return what the kernels need beside ranks to compute the relation, the columns' behind the rows'.

    Rbf: [L] float64 u with relation 2^-((u_i - u_j)^2) where the ranks relate i and j. Overlap: [W, 2, L] int32
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
    return attribute.values if attribute.columns is None else torch.cat([attribute.values, attribute.columns])


def _words(cells: Tensor) -> Tensor:
    """Pack bool [L, C] into int32 words [L, W]: cell c is bit c % 32 of word c // 32."""
    padded = torch.nn.functional.pad(cells, (0, -cells.shape[1] % WORD))
    bits = 1 << torch.arange(WORD, dtype=torch.int32, device=cells.device)
    return (padded.view(len(cells), -1, WORD) * bits).sum(2, dtype=torch.int32)

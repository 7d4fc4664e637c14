"""The inputs of a loss, checked, and encoded as the kernels read them or the reference does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmcuda._native import ops
from mmcuda._native.checks import check_device
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, cells, sort_values

WORD = 32  # cells of a multi-hot label in one word


class Pairs(NamedTuple):
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


def for_kernels(pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """Return rows and columns in a dtype that kernels read: on the CPU float16 becomes float32."""
    if pairs.rows.dtype != torch.float16 or not pairs.rows.is_cpu:
        return pairs.rows, pairs.columns
    return pairs.rows.float(), None if pairs.columns is None else pairs.columns.float()


def for_reference(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return rows and columns, half precision as float32."""
    rows = pairs.rows.flatten(0, -2).to(torch.promote_types(pairs.rows.dtype, torch.float32))
    return rows, rows if pairs.columns is None else pairs.columns.flatten(0, -2).to(rows.dtype)


def own_views(samples: int, different: bool, device: torch.device) -> Attribute:
    """Return labels under which only the own views are positives or, between different samples, the same number."""
    numbers = torch.arange(samples, device=device)
    return Attribute(numbers, Equal(), columns=numbers if different else None)


def dense_relations(pairs: Pairs) -> list[Tensor]:
    """Return each relation as the reference reads it, [N, M]."""
    relations = [attribute.dense() for attribute in pairs.attributes] if pairs.mask is None else [pairs.mask]
    if pairs.views > 1:
        relations = [r.repeat_interleave(pairs.views, 0).repeat_interleave(pairs.views, 1) for r in relations]
    if pairs.columns is not None and pairs.self_offset is not None:
        relations = [r[pairs.self_offset : pairs.self_offset + pairs.anchors] for r in relations]
    return relations


def encoded_relations(pairs: Pairs) -> ops.Relations:
    """Return the relations as the kernels read them."""
    if pairs.mask is None:
        values = [kernel_sort_values(attribute) for attribute in pairs.attributes]
        tolerances = [attribute.relation.tolerance for attribute in pairs.attributes]
        ranks = _with_rows(ops.label_ranks(values, tolerances, pairs.views), pairs)
        codes = [_of_items(relation_codes(attribute), pairs) for attribute in pairs.attributes]
        return ops.Relations(ranks, codes, None, pairs.weights)
    mask = pairs.mask.to(torch.promote_types(pairs.rows.dtype, torch.float32))
    items = pairs.anchors + (0 if pairs.columns is None else math.prod(pairs.columns.shape[:-1]))
    ranks = torch.empty((0, 3, items), dtype=torch.int32, device=mask.device)
    return ops.Relations(ranks, [], mask, pairs.weights)


def _of_items(codes: Tensor, pairs: Pairs) -> Tensor:
    """Expand what the samples have, along the last dimension, to the items: rows, then columns if they are others."""
    if codes.numel() == 0:
        return codes
    return _with_rows(codes.repeat_interleave(pairs.views, -1) if pairs.views > 1 else codes, pairs)


def _with_rows(values: Tensor, pairs: Pairs) -> Tensor:
    """Put the rows that are columns in front of these, along the last dimension."""
    if pairs.columns is None or pairs.self_offset is None:
        return values
    return torch.cat([values[..., pairs.self_offset : pairs.self_offset + pairs.anchors], values], -1)


def kernel_sort_values(attribute: Attribute) -> Tensor:
    """Return what the kernels sort, [L], the columns' behind the rows': int64 with -1 = missing, or float64."""
    values = _all_values(attribute)
    if isinstance(attribute.relation, Overlap):
        return torch.arange(len(values), device=values.device)
    return sort_values(values, attribute.relation)


def relation_codes(attribute: Attribute) -> Tensor:
    """Return what else the kernels need to compute the relation, the columns' behind the rows'.

    Rbf: [L] float64 u with relation 2^-((u_i - u_j)^2) where the intervals relate i and j. Overlap: [W, 2, L] int32
    words of bits, one a cell: what is 1, and what is known. Otherwise empty.
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
    return torch.empty(0, device=attribute.values.device)


def _all_values(attribute: Attribute) -> Tensor:
    return attribute.values if attribute.columns is None else torch.cat([attribute.values, attribute.columns])


def _words(cells: Tensor) -> Tensor:
    """Pack bool [L, C] into int32 words [L, W]: cell c is bit c % 32 of word c // 32."""
    padded = torch.nn.functional.pad(cells, (0, -cells.shape[1] % WORD))
    bits = 1 << torch.arange(WORD, dtype=torch.int32, device=cells.device)
    return (padded.view(len(cells), -1, WORD) * bits).sum(2, dtype=torch.int32)

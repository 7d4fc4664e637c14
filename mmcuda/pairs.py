"""What is contrasted with what, and how label sets become what the kernels read, or the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmcuda import ops
from mmcuda.labels import Equal, LabelSet


class Pairs(NamedTuple):
    """Rows against columns, and what relates them: label sets, or a mask instead of them."""

    rows: Tensor  # [..., D] anchors, N in all
    columns: Tensor | None  # [..., D], M in all; None: the rows themselves
    label_sets: Sequence[LabelSet]
    mask: Tensor | None  # [B, B'] of the samples
    views: int  # rows (and columns) of a sample, adjacent; 1 where rows and columns are different samples
    self_offset: int | None  # row i is column i + self_offset; 0 in self-contrast; None: no row is a column

    @property
    def anchors(self) -> int:
        """Number of rows, N."""
        return math.prod(self.rows.shape[:-1])

    @property
    def weights(self) -> list[float]:
        """Weight of each label set; a mask's is 1."""
        return [labels.weight for labels in self.label_sets] if self.mask is None else [1.0]


def for_kernels(pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """Return rows and columns in a dtype that kernels read: on the CPU float16 becomes float32."""
    if pairs.rows.dtype != torch.float16 or not pairs.rows.is_cpu:
        return pairs.rows, pairs.columns
    return pairs.rows.float(), None if pairs.columns is None else pairs.columns.float()


def for_reference(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return rows and columns, half precision as float32."""
    rows = pairs.rows.flatten(0, -2).to(torch.promote_types(pairs.rows.dtype, torch.float32))
    return rows, rows if pairs.columns is None else pairs.columns.flatten(0, -2).to(rows.dtype)


def own_views(samples: int, different: bool, device: torch.device) -> LabelSet:
    """Return labels under which only the own views are positives or, between different samples, the same number."""
    numbers = torch.arange(samples, device=device)
    return LabelSet(numbers, Equal(), columns=numbers if different else None)


def dense_relations(pairs: Pairs) -> list[Tensor]:
    """Return each relation as the reference reads it, [N, M]."""
    relations = [labels.dense() for labels in pairs.label_sets] if pairs.mask is None else [pairs.mask]
    if pairs.views > 1:
        relations = [r.repeat_interleave(pairs.views, 0).repeat_interleave(pairs.views, 1) for r in relations]
    if pairs.columns is not None and pairs.self_offset is not None:
        relations = [r[pairs.self_offset : pairs.self_offset + pairs.anchors] for r in relations]
    return relations


def encoded_relations(pairs: Pairs) -> ops.Relations:
    """Return the relations as the kernels read them."""
    if pairs.mask is None:
        keys = [labels.keys() for labels in pairs.label_sets]
        tolerances = [labels.relation.tolerance for labels in pairs.label_sets]
        ranks = _with_rows(ops.label_ranks(keys, tolerances, pairs.views), pairs)
        codes = [_of_items(labels.codes(), pairs) for labels in pairs.label_sets]
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

"""The operators of csrc/ops.cpp as PyTorch knows them: shapes without data, gradients.

Items are the rows and, in cross-contrast, the columns behind them: L = N or N + M. Anchors are the rows and, with
``both_ways``, the columns, too: A = N or N + M.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcuda._native import extension

BLOCK, MOST_KEPT = 96, 30_000_000  # kBlock and kMostKept of csrc/contrastive.h


operators = torch.ops.mmcuda


class Relations(NamedTuple):
    """K attributes as the kernels read them; a mask is one more, the last."""

    ranks: Tensor  # [K, 3, L] int32 from label_ranks, per item
    codes: list[Tensor]  # K: empty (Equal, Within), float64 [L] (Rbf) or int32 [W, 2, L] (Overlap)
    mask: Tensor | None  # [B, B'] dense relation in the dtype of the computation
    weights: list[float]  # K (+ 1)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch.compile reads it once
def _allow_tf32() -> bool:
    """Whether CUDA may round float32 factors to TF32, as it then may in torch's own products."""
    return torch.get_float32_matmul_precision() != "highest"


def label_ranks(labels: Sequence[Tensor], tolerances: Sequence[float], views: int) -> Tensor:
    """Turn label values into rank intervals: b's positives are the items a with first_b <= rank_a <= last_b.

    Args:
        labels: K tensors [B], int64 (-1 = missing) or float64 (not finite = missing).
        tolerances: per attribute the largest difference between positives; 0 for integer labels.
        views: items of a sample, adjacent.

    Returns:
        [K, 3, B * views] int32: rank, first, last.
    """
    ranks: Tensor = operators.label_ranks(labels, tolerances, views)
    return ranks


def contrastive_losses(
    rows: Tensor,
    columns: Tensor | None,
    temperature: Tensor,
    relations: Relations,
    self_offset: int | None,
    positives: str,
    denominator: str,
    both_ways: bool,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """Return the loss of every anchor, differentiable once in the features and the temperature, and its totals.

    The loss is [A] or, reduced, [].

    The totals, [K, A] float64, say how many positives an anchor has under each attribute; soft ones count in part.

    Args:
        rows: [..., D] float32, float64 or bfloat16, N in all.
        columns: [..., D] in the same dtype, M in all; None: the rows themselves.
        temperature: [] float32 or float64, positive.
        relations: what makes positives.
        self_offset: row i is column i + self_offset, a pair that is left out; None: rows and columns are different.
        positives: "outside" or "inside" the logarithm.
        denominator: "all", "negatives" or "one_positive".
        both_ways: columns are anchors, too.
        reduction: "none", "mean" or "sum".
    """
    result: tuple[Tensor, Tensor] = _Contrastive.apply(
        *(rows, columns, temperature, *relations, self_offset, positives, denominator, both_ways, reduction),
        _allow_tf32(),
    )
    return result


def pair_margin_losses(
    rows: Tensor, columns: Tensor | None, relations: Relations, self_offset: int | None, margin: float
) -> tuple[Tensor, Tensor]:
    """Return the pair margin loss of every row, the mean over its pairs, [N], and its totals, [K, N].

    The losses are differentiable once in the features.
    """
    ranks, codes, _, weights = relations
    result: tuple[Tensor, Tensor] = _PairMargin.apply(
        rows, columns, ranks, codes, weights, self_offset, margin, _allow_tf32()
    )
    return result


# ---- shapes --------------------------------------------------------------------------------------------------------


def _compute_dtype(features: Tensor) -> torch.dtype:
    return torch.promote_types(features.dtype, torch.float32)


def _label_ranks_fake(labels: Sequence[Tensor], tolerances: Sequence[float], views: int) -> Tensor:
    return labels[0].new_empty((len(labels), 3, labels[0].shape[0] * views), dtype=torch.int32)


def _contrastive_fwd_fake(
    rows: Tensor,
    columns: Tensor | None,
    temperature: Tensor,
    ranks: Tensor,
    codes: Sequence[Tensor],
    mask: Tensor | None,
    weights: Sequence[float],
    self_offset: int | None,
    positives: str,
    denominator: str,
    both_ways: bool,
    reduction: str,
    allow_tf32: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    anchors = math.prod(rows.shape[:-1]) + (math.prod(columns.shape[:-1]) if both_ways and columns is not None else 0)
    sets = len(weights)
    sums = (1 if denominator == "all" else sets) + (sets if positives == "inside" else 0)
    slots = 2 * sums + (sets if denominator == "one_positive" else 0)
    dtype = _compute_dtype(rows)
    return (
        rows.new_empty(anchors if reduction == "none" else (), dtype=dtype),
        rows.new_empty((slots, anchors), dtype=dtype),
        rows.new_empty((sets, anchors), dtype=torch.float64),
        rows.new_empty((_kept(rows, columns) if keep and rows.is_cpu else 0, BLOCK * BLOCK), dtype=dtype),
    )


def _gradients_fake(rows: Tensor, columns: Tensor | None, need_rows: bool, need_columns: bool) -> tuple[Tensor, Tensor]:
    return (
        rows.new_empty(rows.shape if need_rows else (0, rows.shape[-1])),
        rows.new_empty(columns.shape if need_columns and columns is not None else (0, rows.shape[-1])),
    )


def _contrastive_bwd_fake(
    grad_loss: Tensor,
    statistics: Tensor,
    totals: Tensor,
    dots: Tensor,
    need_rows: bool,
    need_columns: bool,
    rows: Tensor,
    columns: Tensor | None,
    *args: Any,
) -> tuple[Tensor, Tensor]:
    return _gradients_fake(rows, columns, need_rows, need_columns)


def _pair_margin_fwd_fake(
    rows: Tensor, columns: Tensor | None, ranks: Tensor, codes: Sequence[Tensor], weights: Sequence[float], *args: Any
) -> tuple[Tensor, Tensor]:
    n = math.prod(rows.shape[:-1])
    return rows.new_empty(n, dtype=_compute_dtype(rows)), rows.new_empty((len(weights), n), dtype=torch.float64)


def _pair_margin_bwd_fake(
    grad_losses: Tensor, need_rows: bool, need_columns: bool, rows: Tensor, columns: Tensor | None, *args: Any
) -> tuple[Tensor, Tensor]:
    return _gradients_fake(rows, columns, need_rows, need_columns)


def _kept(rows: Tensor, columns: Tensor | None) -> int | torch.SymInt:
    """Return of how many block pairs the forward keeps the dot products: of all, up to a fixed number of bytes."""
    blocks = -(-math.prod(rows.shape[:-1]) // BLOCK)
    pairs = blocks * (blocks + 1) // 2 if columns is None else blocks * -(-math.prod(columns.shape[:-1]) // BLOCK)
    return torch.sym_min(pairs, MOST_KEPT // (BLOCK * BLOCK * _compute_dtype(rows).itemsize))


# ---- gradients -----------------------------------------------------------------------------------------------------


class _Once(torch.autograd.Function):
    """A gradient as it is, which refuses to be differentiated with respect to what it was computed from."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *sources: Tensor | None) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("the fused loss is differentiable once; use impl='reference' for higher derivatives")


def _once(grad: Tensor, wanted: bool, *sources: Tensor | None) -> Tensor | None:
    if not wanted:
        return None
    return _Once.apply(grad, *sources) if torch.is_grad_enabled() else grad


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        rows, columns, temperature, ranks, codes, mask, *ctx.settings = inputs
        loss, statistics, totals, dots = operators.contrastive_fwd(*inputs, any(ctx.needs_input_grad))
        ctx.mark_non_differentiable(totals)
        ctx.set_materialize_grads(False)  # none of totals
        ctx.save_for_backward(statistics, totals, dots, rows, columns, temperature, ranks, mask, *codes)
        return loss, totals

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, _: None) -> Any:
        if grad_loss is None:
            return (None,) * 13
        statistics, totals, dots, rows, columns, temperature, ranks, mask, *codes = ctx.saved_tensors
        need_rows, need_columns, need_temperature = ctx.needs_input_grad[:3]
        grad_rows, grad_columns = operators.contrastive_bwd(
            grad_loss,
            statistics,
            totals,
            dots,
            need_rows or need_temperature,
            need_columns,
            rows,
            columns,
            temperature,
            ranks,
            codes,
            mask,
            *ctx.settings,
        )
        grad_temperature = grad_loss  # not used unless needed
        if need_temperature:
            # s = x.y / tau: dL/dtau = -sum G s / tau, and sum_i x_i.(dL/dx_i) is sum G s, twice that in self-contrast.
            dtype = _compute_dtype(rows)
            grad_log = (rows.to(dtype) * grad_rows.to(dtype)).sum() * (0.5 if columns is None else 1.0)
            grad_temperature = -grad_log.to(temperature.dtype) / temperature
        sources = (grad_loss, rows, columns, temperature)
        return (
            _once(grad_rows, need_rows, *sources),
            _once(grad_columns, need_columns, *sources),
            _once(grad_temperature, need_temperature, *sources),
            *(None,) * 10,
        )


class _PairMargin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        rows, columns, ranks, codes, *ctx.settings = inputs
        ctx.save_for_backward(rows, columns, ranks, *codes)
        losses, totals = operators.pair_margin_fwd(*inputs)
        ctx.mark_non_differentiable(totals)
        ctx.set_materialize_grads(False)  # none of totals
        return losses, totals

    @staticmethod
    def backward(ctx: Any, grad_losses: Tensor | None, _: None) -> Any:
        if grad_losses is None:
            return (None,) * 8
        rows, columns, ranks, *codes = ctx.saved_tensors
        need_rows, need_columns = ctx.needs_input_grad[:2]
        grad_rows, grad_columns = operators.pair_margin_bwd(
            grad_losses, need_rows, need_columns, rows, columns, ranks, codes, *ctx.settings
        )
        sources = (grad_losses, rows, columns)
        return _once(grad_rows, need_rows, *sources), _once(grad_columns, need_columns, *sources), *(None,) * 6


if extension.native is not None:
    _FAKES: dict[str, Callable[..., Any]] = {
        "label_ranks": _label_ranks_fake,
        "contrastive_fwd": _contrastive_fwd_fake,
        "contrastive_bwd": _contrastive_bwd_fake,
        "pair_margin_fwd": _pair_margin_fwd_fake,
        "pair_margin_bwd": _pair_margin_bwd_fake,
    }
    for _name, _fake in _FAKES.items():
        torch.library.register_fake(f"mmcuda::{_name}", _fake)

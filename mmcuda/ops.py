"""The operators of csrc/ops.cpp as PyTorch knows them: shapes without data, gradients, autocast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmcuda import _extension


def label_ranks(labels: Sequence[Tensor], tolerances: Sequence[float]) -> Tensor:
    """Turn label values into rank intervals: b's positives are the samples a with first_b <= rank_a <= last_b.

    Args:
        labels: K tensors [B], int64 (-1 = missing) or float64 (not finite = missing).
        tolerances: per label set the largest difference between positives; 0 for integer labels.

    Returns:
        [K, 3, B] int32: rank, first, last.
    """
    ranks: Tensor = torch.ops.mmcuda.label_ranks(labels, tolerances)
    return ranks


def supcon_losses(
    features: Tensor, ranks: Tensor, weights: Sequence[float], mask: Tensor | None, temperature: float
) -> Tensor:
    """Return the loss of every row, [N], differentiable once with respect to ``features``.

    Args:
        features: [N, D] float32 or float64; the N / B views of a sample are adjacent.
        ranks: [K, 3, B] from :func:`label_ranks`.
        weights: per label set its weight.
        mask: [B, B] dense relation in the dtype of ``features``, of weight 1, or None.
        temperature: tau > 0.
    """
    losses: Tensor = torch.ops.mmcuda.supcon_fwd(features, ranks, weights, mask, temperature)[0]
    return losses


def _label_ranks_fake(labels: Sequence[Tensor], tolerances: Sequence[float]) -> Tensor:
    return labels[0].new_empty((len(labels), 3, labels[0].shape[0]), dtype=torch.int32)


def _supcon_fwd_fake(features: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    rows = features.shape[0]
    return features.new_empty(rows), features.new_empty((2, rows))


def _supcon_bwd_fake(grad_losses: Tensor, features: Tensor, *args: Any) -> Tensor:
    return features.new_empty(features.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, ranks, ctx.weights, mask, ctx.temperature = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(features, output[1], ranks, mask)


def _supcon_backward(ctx: Any, grad_losses: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if ctx.needs_input_grad[3]:
        raise NotImplementedError("the fused loss has no gradient of the mask")
    if grad_losses is None:
        return (None,) * 5
    features, statistics, ranks, mask = ctx.saved_tensors
    grad_features = torch.ops.mmcuda.supcon_bwd(
        grad_losses, features, statistics, ranks, ctx.weights, mask, ctx.temperature
    )
    return grad_features, None, None, None, None


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("the fused loss is differentiable once; use impl='reference' for higher derivatives")


if _extension.native is not None:
    torch.library.register_fake("mmcuda::label_ranks", _label_ranks_fake)
    torch.library.register_fake("mmcuda::supcon_fwd", _supcon_fwd_fake)
    torch.library.register_fake("mmcuda::supcon_bwd", _supcon_bwd_fake)
    torch.library.register_autograd("mmcuda::supcon_fwd", _supcon_backward, setup_context=_save_for_backward)
    torch.library.register_autograd("mmcuda::supcon_bwd", _refuse_double_backward)
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast("mmcuda::supcon_fwd", _device, torch.float32)

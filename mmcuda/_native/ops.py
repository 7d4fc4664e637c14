"""What PyTorch is told about the operators of csrc/ops.cpp: shapes without data, gradients.

Items are the anchors and, in cross-contrast, the keys behind them: L = N or N + M. Each anchor has a loss and, with
``symmetric``, each key: A = N or N + M.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from mmcuda._native import extension

operators = torch.ops.mmcuda
_BUILD = {} if extension.native is None else extension.native.build_info()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch.compile reads it once
def allow_tf32() -> bool:
    """Whether CUDA may round float32 factors to TF32, as it then may in torch's own products."""
    return torch.get_float32_matmul_precision() != "highest"


# ---- shapes --------------------------------------------------------------------------------------------------------


def _compute_dtype(features: Tensor) -> torch.dtype:
    return torch.promote_types(features.dtype, torch.float32)


def _label_intervals_fake(labels: Sequence[Tensor], tolerances: Sequence[float], views: int) -> Tensor:
    return labels[0].new_empty((len(labels), 3, labels[0].shape[0] * views), dtype=torch.int32)


def _contrastive_fwd_fake(
    anchors: Tensor,
    keys: Tensor | None,
    temperature: Tensor,
    intervals: Tensor,
    relation_data: Tensor | None,
    words: Sequence[int],
    mask: Tensor | None,
    weights: Sequence[float],
    anchor_offset: int | None,
    positives: str,
    denominator: str,
    symmetric: bool,
    reduction: str,
    allow_tf32: bool,
    save_logits: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = math.prod(anchors.shape[:-1]) + (math.prod(keys.shape[:-1]) if symmetric and keys is not None else 0)
    sets = len(weights)
    sums = (1 if denominator == "all" else sets) + (sets if positives == "in" else 0)
    slots = 2 * sums + (sets if denominator == "sincere" else 0)
    dtype = _compute_dtype(anchors)
    return (
        anchors.new_empty(count if reduction == "none" else (), dtype=dtype),
        anchors.new_empty((slots, count), dtype=dtype),
        anchors.new_empty((sets, count), dtype=torch.float64),
        anchors.new_empty(
            (_saved_block_pairs(anchors, keys) if save_logits and anchors.is_cpu else 0, _BUILD["block"] ** 2),
            dtype=dtype,
        ),
    )


def _gradients_fake(anchors: Tensor, keys: Tensor | None, need_anchors: bool, need_keys: bool) -> tuple[Tensor, Tensor]:
    return (
        anchors.new_empty(anchors.shape if need_anchors else (0, anchors.shape[-1])),
        anchors.new_empty(keys.shape if need_keys and keys is not None else (0, anchors.shape[-1])),
    )


def _contrastive_bwd_fake(
    grad_loss: Tensor,
    saved_lse: Tensor,
    positive_counts: Tensor,
    saved_logits: Tensor,
    need_anchors: bool,
    need_keys: bool,
    anchors: Tensor,
    keys: Tensor | None,
    *args: Any,
) -> tuple[Tensor, Tensor]:
    return _gradients_fake(anchors, keys, need_anchors, need_keys)


def _pair_margin_fwd_fake(
    anchors: Tensor,
    keys: Tensor | None,
    intervals: Tensor,
    relation_data: Tensor | None,
    words: Sequence[int],
    weights: Sequence[float],
    *args: Any,
) -> tuple[Tensor, Tensor]:
    n = math.prod(anchors.shape[:-1])
    return anchors.new_empty(n, dtype=_compute_dtype(anchors)), anchors.new_empty(
        (len(weights), n), dtype=torch.float64
    )


def _pair_margin_bwd_fake(
    grad_losses: Tensor, need_anchors: bool, need_keys: bool, anchors: Tensor, keys: Tensor | None, *args: Any
) -> tuple[Tensor, Tensor]:
    return _gradients_fake(anchors, keys, need_anchors, need_keys)


def _saved_block_pairs(anchors: Tensor, keys: Tensor | None) -> int | torch.SymInt:
    """Return of how many block pairs the forward keeps the dot products: of all, up to a fixed number of bytes."""
    block: int = _BUILD["block"]
    blocks = -(-math.prod(anchors.shape[:-1]) // block)
    pairs = blocks * (blocks + 1) // 2 if keys is None else blocks * -(-math.prod(keys.shape[:-1]) // block)
    most: int = _BUILD["max_saved_bytes"] // (block**2 * _compute_dtype(anchors).itemsize)
    return torch.sym_min(pairs, most)


# ---- gradients -----------------------------------------------------------------------------------------------------
#
# torch.library.register_autograd would do, but reads the schema once per argument in every call: 15 arguments cost as
# much as everything else in Python. So these functions are the operators' kernels for the dispatch key Autograd.


below_autograd = torch._C._AutoDispatchBelowAutograd


class _Differentiable(torch.autograd.Function):
    """An operator with its gradient. The first argument of ``forward`` is the library that has both."""

    @classmethod
    def kernel(cls, library: Any, name: str) -> Callable[..., Any]:
        """Return the operator's kernel for tensors with a gradient; without one the kernel below is called."""
        operator = getattr(library, name)

        def differentiable(*inputs: Any) -> Any:
            if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
                return cls.apply(library, *inputs)
            with below_autograd():
                return operator(*inputs)

        return differentiable


def gradient_of(operator: Any, *inputs: Any) -> Any:
    """Return what an operator for a gradient does: where no graph of it is made, without the detour over its own."""
    if torch.is_grad_enabled():
        return operator(*inputs)
    with below_autograd():
        return operator(*inputs)


class _Contrastive(_Differentiable):
    @staticmethod
    def forward(ctx: Any, library: Any, *inputs: Any) -> Any:
        anchors, keys, temperature, intervals, relation_data, words, mask, *settings, _ = inputs
        with below_autograd():
            loss, saved_lse, positive_counts, saved_logits = library.contrastive_fwd(*inputs)
        ctx.mark_non_differentiable(saved_lse, positive_counts, saved_logits)
        ctx.set_materialize_grads(False)  # none of these
        ctx.save_for_backward(
            anchors, keys, temperature, intervals, relation_data, mask, saved_lse, positive_counts, saved_logits
        )
        ctx.library, ctx.words, ctx.settings = library, words, settings
        return loss, saved_lse, positive_counts, saved_logits

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: None) -> Any:
        if grad_loss is None:
            return (None,) * 16
        anchors, keys, temperature, intervals, relation_data, mask, saved_lse, positive_counts, saved_logits = (
            ctx.saved_tensors
        )
        _, need_anchors, need_keys, need_temperature, *_ = ctx.needs_input_grad
        grad_anchors, grad_keys = gradient_of(
            ctx.library.contrastive_bwd,
            grad_loss,
            saved_lse,
            positive_counts,
            saved_logits,
            need_anchors or need_temperature,
            need_keys,
            anchors,
            keys,
            temperature,
            intervals,
            relation_data,
            ctx.words,
            mask,
            *ctx.settings,
        )
        grad_temperature = None
        if need_temperature:
            # s = x.y / tau: dL/dtau = -sum G s / tau, and sum_i x_i.(dL/dx_i) is sum G s, twice that in self-contrast.
            dtype = _compute_dtype(anchors)
            grad_log = (anchors.to(dtype) * grad_anchors.to(dtype)).sum() * (0.5 if keys is None else 1.0)
            grad_temperature = -grad_log.to(temperature.dtype) / temperature
        gradients = grad_anchors if need_anchors else None, grad_keys if need_keys else None, grad_temperature
        return None, *gradients, *(None,) * 12


class _PairMargin(_Differentiable):
    @staticmethod
    def forward(ctx: Any, library: Any, *inputs: Any) -> Any:
        anchors, keys, intervals, relation_data, *settings = inputs
        with below_autograd():
            losses, positive_counts = library.pair_margin_fwd(*inputs)
        ctx.mark_non_differentiable(positive_counts)
        ctx.set_materialize_grads(False)  # none of the positive_counts
        ctx.save_for_backward(anchors, keys, intervals, relation_data)
        ctx.library, ctx.settings = library, settings
        return losses, positive_counts

    @staticmethod
    def backward(ctx: Any, grad_losses: Tensor | None, _: None) -> Any:
        if grad_losses is None:
            return (None,) * 10
        _, need_anchors, need_keys, *_ = ctx.needs_input_grad
        grad_anchors, grad_keys = gradient_of(
            ctx.library.pair_margin_bwd, grad_losses, need_anchors, need_keys, *ctx.saved_tensors, *ctx.settings
        )
        return None, grad_anchors if need_anchors else None, grad_keys if need_keys else None, *(None,) * 7


class _ContrastiveGradient(_Differentiable):
    @staticmethod
    def forward(ctx: Any, library: Any, *inputs: Any) -> Any:
        with below_autograd():
            return library.contrastive_bwd(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        _refuse()


class _PairMarginGradient(_Differentiable):
    @staticmethod
    def forward(ctx: Any, library: Any, *inputs: Any) -> Any:
        with below_autograd():
            return library.pair_margin_bwd(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        _refuse()


def _refuse() -> NoReturn:
    raise NotImplementedError("the fused loss is differentiable once; use impl='reference' for higher derivatives")


# ---- registration --------------------------------------------------------------------------------------------------

_FAKES: dict[str, Callable[..., Any]] = {
    "label_intervals": _label_intervals_fake,
    "contrastive_fwd": _contrastive_fwd_fake,
    "contrastive_bwd": _contrastive_bwd_fake,
    "pair_margin_fwd": _pair_margin_fwd_fake,
    "pair_margin_bwd": _pair_margin_bwd_fake,
}
_DIFFERENTIABLE: dict[str, type[_Differentiable]] = {
    "contrastive_fwd": _Contrastive,
    "contrastive_bwd": _ContrastiveGradient,
    "pair_margin_fwd": _PairMargin,
    "pair_margin_bwd": _PairMarginGradient,
}
_registrations: list[torch.library.Library] = []  # each lasts as long as its object


def register(name: str) -> None:
    """Tell PyTorch about the operators of a loaded library, ``torch.ops.<name>``."""
    library = getattr(torch.ops, name)
    for operator, fake in _FAKES.items():
        torch.library.register_fake(f"{name}::{operator}", fake)
    registration = torch.library.Library(name, "IMPL")  # type: ignore[no-untyped-call]
    for operator, function in _DIFFERENTIABLE.items():
        registration.impl(operator, function.kernel(library, operator), "Autograd")  # type: ignore[no-untyped-call]
    _registrations.append(registration)


if extension.native is not None:
    register("mmcuda")

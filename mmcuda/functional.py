"""The contrastive loss as a function: checks its arguments and chooses the implementation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mmcuda import _extension, ops, reference
from mmcuda.labels import Equal, LabelSet, check_number, check_tensor

Implementation = Literal["auto", "fused", "reference"]
ContrastMode = Literal["all", "one"]


def supcon_loss(
    features: Tensor,
    label_sets: Sequence[LabelSet] = (),
    *,
    mask: Tensor | None = None,
    temperature: float = 0.07,
    contrast_mode: ContrastMode = "all",
    base_temperature: float = 0.07,
    impl: Implementation = "auto",
) -> Tensor:
    """Supervised contrastive loss, summed over label sets in one pass over the batch.

    With several views, tau = ``temperature`` and P_k(i) the positives of row i, the loss is

        tau / base_temperature * mean_i sum_k w_k [P_k(i) not empty] (lse_i - mean_{j in P_k(i)} s_ij)

    An anchor without positives adds 0 and stays in the mean. Memory is O(N D) with the fused kernels, N = B V.

    Args:
        features: [B, V, D] views of each sample, L2-normalised by the caller (any norm is computed correctly).
        label_sets: what makes positives, each with values [B]; empty: a sample's own views only (SimCLR).
        mask: [B, B] dense relation instead of label sets; ``mask[i, j] >= 0`` weights j as a positive of i.
        temperature: tau > 0.
        contrast_mode: anchors are "all" views, or only the first ("one").
        base_temperature: scales the loss by ``temperature / base_temperature``.
        impl: "fused" kernels, the dense PyTorch "reference", or "auto": fused where there are kernels.

    Returns:
        Scalar loss in the dtype of ``features`` (float32 for half precision).

    Raises:
        ValueError: an argument has the wrong shape, dtype or value; features or mask are not finite (told on the CPU
            outside a compiled graph: elsewhere the loss is NaN, since looking would wait for the device).
        TypeError: an argument is not a tensor or number; a temperature that is a tensor would get no gradient.
        RuntimeError: ``impl="fused"`` where there are no kernels, with the reason.

    Example:
        >>> z = torch.nn.functional.normalize(torch.randn(8, 2, 16), dim=-1)
        >>> bcva, cst = torch.randint(27, 100, (8,)), 300 + 100 * torch.rand(8)
        >>> loss = supcon_loss(z, [LabelSet(bcva, Equal()), LabelSet(cst, Within(25.0), weight=0.5)])
    """
    _check(features, label_sets, mask, temperature, contrast_mode, base_temperature, impl)
    samples, views, _ = features.shape
    dtype = torch.promote_types(features.dtype, torch.float32)
    rows = features.flatten(0, 1).to(dtype)
    if mask is not None:
        mask = mask.to(dtype)
    elif not label_sets:
        label_sets = [LabelSet(torch.arange(samples, device=features.device), Equal())]

    if _use_fused(impl, features.device.type):
        losses = _fused(rows, samples, label_sets, mask, temperature)
    else:
        losses = _dense(rows, views, label_sets, mask, temperature)
    if _may_look(losses) and not losses.isfinite().all():
        raise ValueError("features / temperature is too large: the logits overflow")
    if contrast_mode == "one":
        losses = losses.view(samples, views)[:, 0]
    return losses.mean() * (temperature / base_temperature)


def _fused(
    rows: Tensor, samples: int, label_sets: Sequence[LabelSet], mask: Tensor | None, temperature: float
) -> Tensor:
    if mask is None:
        ranks = ops.label_ranks([s.codes() for s in label_sets], [s.relation.tolerance for s in label_sets])
    else:
        ranks = torch.empty((0, 3, samples), dtype=torch.int32, device=rows.device)
    return ops.supcon_losses(rows, ranks, [s.weight for s in label_sets], mask, temperature)


def _dense(rows: Tensor, views: int, label_sets: Sequence[LabelSet], mask: Tensor | None, temperature: float) -> Tensor:
    if mask is None:
        positives, weights = [s.positives() for s in label_sets], [s.weight for s in label_sets]
    else:
        positives, weights = [mask], [1.0]
    with torch.autocast(rows.device.type, enabled=False):  # float32, like the kernels
        return reference.supcon_losses(rows, views, positives, weights, temperature)


def _use_fused(impl: Implementation, device_type: str) -> bool:
    if impl == "reference":
        return False
    reason = _extension.why_not_fused(device_type)
    if impl == "fused" and reason:
        raise RuntimeError(f"impl='fused' is not possible: {reason}")
    return reason is None


def _check(
    features: Tensor,
    label_sets: Sequence[LabelSet],
    mask: Tensor | None,
    temperature: float,
    contrast_mode: str,
    base_temperature: float,
    impl: str,
) -> None:
    check_tensor("features", features)
    if features.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(f"features must be float16, bfloat16, float32 or float64, got {features.dtype}")
    if features.ndim != 3 or features.numel() == 0:
        raise ValueError(f"features must be [B, V, D] with at least one element, got shape {list(features.shape)}")
    if _may_look(features) and not features.isfinite().all():
        raise ValueError("features must be finite, got NaN or infinity")
    check_number("temperature", temperature, zero_allowed=False)
    check_number("base_temperature", base_temperature, zero_allowed=False)
    if contrast_mode not in ("all", "one"):
        raise ValueError(f"contrast_mode must be 'all' or 'one', got {contrast_mode!r}")
    if impl not in ("auto", "fused", "reference"):
        raise ValueError(f"impl must be 'auto', 'fused' or 'reference', got {impl!r}")
    samples = len(features)
    if mask is not None:
        if label_sets:
            raise ValueError("labels and mask cannot be given together: give one of them")
        check_tensor("mask", mask)
        if mask.shape != (samples, samples) or mask.is_complex():
            wanted = f"real and [B, B] = [{samples}, {samples}]"
            raise ValueError(f"mask must be {wanted}, got {mask.dtype} {list(mask.shape)}")
        if mask.requires_grad:
            raise ValueError("mask must not require a gradient: the loss has none for it")
        _check_device("mask", mask, features)
        if _may_look(mask) and not ((mask >= 0) & (mask < math.inf)).all():
            raise ValueError("mask must be finite and not negative")
    for labels in label_sets:
        if len(labels.values) != samples:
            raise ValueError(f"{labels.name} must have one value per sample, B = {samples}, got {len(labels.values)}")
        _check_device(labels.name, labels.values, features)


def _check_device(name: str, tensor: Tensor, features: Tensor) -> None:
    if tensor.device != features.device:
        raise ValueError(f"{name} must be on the device of features, {features.device}, got {tensor.device}")


def _may_look(tensor: Tensor) -> bool:
    """Whether the values may be read here: on an accelerator that would wait for it, in a compiled graph break it."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()

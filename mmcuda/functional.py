"""The contrastive losses as functions: they check their arguments, choose the implementation and reduce."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from mmcuda._native import checks, extension, ops, reference
from mmcuda._native.checks import check_number
from mmcuda._native.encode import (
    LossInputs,
    check_attributes,
    contrastive_arguments,
    dense_relations,
    for_reference,
    instance_labels,
    pair_margin_arguments,
)
from mmcuda.relations import Attribute

Implementation = Literal["auto", "fused", "reference"]
ContrastMode = Literal["all", "one"]
Positives = Literal["out", "in"]
Denominator = Literal["all", "negatives", "sincere"]
Reduction = Literal["none", "mean", "has_positives", "sum"]


def supcon_loss(
    features: Tensor,
    attributes: Sequence[Attribute] = (),
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    contrast_mode: ContrastMode = "all",
    base_temperature: float | None = None,
    positives: Positives = "out",
    denominator: Denominator = "all",
    anchor_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    impl: Implementation = "auto",
) -> Tensor:
    """Supervised contrastive loss of a batch against itself, summed over attributes in one pass.

    With s_ij = x_i.x_j / tau over the other rows j and P_k(i) the positives of anchor i, the loss of an anchor is

        loss_i = sum_k w_k [P_k(i) not empty] (log sum_j exp s_ij - mean_{j in P_k(i)} s_ij)

    unless ``positives`` and ``denominator`` say otherwise; :mod:`mmcuda._native.reference` lists the formulas and their
    papers. An anchor without positives has loss 0. Memory is O(N D) with the fused kernels, N = B V.

    Args:
        features: [B, V, ...] views of each sample, dimensions beyond the third flattened, or [N, D] one view of each;
            L2-normalised by the caller (any norm is computed correctly).
        attributes: what makes positives, each with values of B samples; empty: a sample's own views only (SimCLR).
        mask: [B, B] dense relation instead of attributes; ``mask[i, j] >= 0`` weights j as a positive of i.
        temperature: tau > 0, a number or a tensor []; one that requires a gradient gets it.
        contrast_mode: anchors are "all" views, or only the first ("one").
        base_temperature: scales the loss by ``temperature / base_temperature``; None: not scaled.
        positives: summed outside the logarithm ("out": L_out) or inside ("in": L_in).
        denominator: sums "all" pairs, only the "negatives" (decoupled), or these and one positive ("sincere").
        anchor_weights: [B], how much the anchors of each sample count; see ``reduction``.
        reduction: "mean" over the anchors, weighted by ``anchor_weights``; "has_positives": over those that have
            positives, 0 if none has; "sum" or "none": of the losses times their weights.
        impl: "fused" kernels, the dense PyTorch "reference", or "auto": fused where there are kernels.

    Returns:
        The loss in the dtype of ``features`` (float32 for half precision): scalar, or for ``reduction="none"`` [B, V],
        of [N, D] [N], with ``contrast_mode="one"`` [B]. Features that are not finite give NaN.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or value (values of tensors are looked at on the CPU
            outside a compiled graph; elsewhere that would wait for the device).
        TypeError: an argument has the wrong type.
        RuntimeError: ``impl="fused"`` where there are no kernels, with the reason.

    Example:
        >>> z = torch.nn.functional.normalize(torch.randn(8, 2, 16), dim=-1)
        >>> bcva, cst = torch.randint(27, 100, (8,)), 300 + 100 * torch.rand(8)
        >>> loss = supcon_loss(z, [Attribute(bcva, Equal()), Attribute(cst, Within(25.0), weight=0.5)])
    """
    checks.check_views("features", features)
    if features.ndim > 3:
        features = features.flatten(2)
    samples, views = features.shape[0], 1 if features.ndim == 2 else features.shape[1]
    check_attributes(attributes, ("sample, B", samples), None, "features", features)
    if mask is not None:
        checks.check_mask(mask, attributes, "[B, B]", (samples, samples), denominator, "features", features)
    checks.check_temperature(temperature, "features", features)
    if base_temperature is not None:
        check_number("base_temperature", base_temperature, zero_allowed=False)
    checks.check_choice("contrast_mode", contrast_mode, ("all", "one"))
    checks.check_variant(positives, denominator)
    if anchor_weights is not None:
        checks.check_anchor_weights(anchor_weights, "[B]", samples, "features", features)
    checks.check_execution(reduction, impl)

    if mask is None and not attributes:
        attributes = [instance_labels(samples, False, features.device)]
    inputs = LossInputs(features, None, attributes, mask, views, 0)
    if _use_fused(impl, features.device):
        early = _early(reduction, anchor_weights is None and contrast_mode == "all")
        losses, _, positive_counts, _ = ops.operators.contrastive_fwd(
            *contrastive_arguments(inputs, temperature, positives, denominator, False, early)
        )
    else:
        losses, positive_counts = _reference_losses(inputs, temperature, positives, denominator, False, reduction)
    scale = 1.0 if base_temperature is None else temperature / base_temperature
    if isinstance(scale, Tensor) or scale != 1:
        losses = losses * scale
    if losses.ndim == 0:
        return losses  # type: ignore[no-any-return]
    weights = None if anchor_weights is None else anchor_weights.repeat_interleave(views)
    weights = _counting(weights, positive_counts, inputs.weights, reduction)
    if contrast_mode == "one":
        losses, weights = losses[::views], None if weights is None else weights[::views]
    reduced = _reduced(losses, weights, reduction)
    by_view = reduction == "none" and contrast_mode == "all" and features.ndim == 3
    return reduced.view(samples, views) if by_view else reduced


def cross_contrast_loss(
    anchors: Tensor,
    keys: Tensor,
    attributes: Sequence[Attribute] = (),
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    positives: Positives = "out",
    denominator: Denominator = "all",
    anchor_offset: int | None = None,
    views: int = 1,
    symmetric: bool = False,
    anchor_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    impl: Implementation = "auto",
) -> Tensor:
    """Contrastive loss of anchors against keys: image and text, a memory queue, a batch gathered from devices.

    The loss of an anchor is that of :func:`supcon_loss`, with the keys as the others. With ``anchor_offset`` the
    anchors are among the keys: anchor i is key i + anchor_offset, and that pair is left out.

    Args:
        anchors: [N, D].
        keys: [M, D], of the dtype of ``anchors``.
        attributes: what makes positives, with values of N anchors and, as ``keys``, of M keys; with ``anchor_offset``
            with values of the M / views samples of the keys. Empty: anchor i's only positive is key i (CLIP), or
            with ``anchor_offset`` its own other views (SimCLR).
        mask: dense relation instead of attributes, >= 0: [N, M]; with ``anchor_offset`` [M / views, M / views].
        temperature: tau > 0, a number or a tensor []; one that requires a gradient gets it.
        positives: summed outside the logarithm ("out": L_out) or inside ("in": L_in).
        denominator: sums "all" pairs, only the "negatives" (decoupled), or these and one positive ("sincere").
        anchor_offset: the key that the first anchor is; None: no anchor is a key.
        views: views of a sample, adjacent in the keys; other than 1 only with ``anchor_offset``.
        symmetric: each key is an anchor as well, against the anchors.
        anchor_weights: [N], how much each anchor counts; with ``symmetric`` [N + M], the anchors' first.
        reduction: "mean", "has_positives", "sum" or "none", as in :func:`supcon_loss`.
        impl: "fused" kernels, the dense PyTorch "reference", or "auto": fused where there are kernels.

    Returns:
        The loss in the dtype of ``anchors`` (float32 for half precision): scalar, or for ``reduction="none"`` [N], with
        ``symmetric`` [N + M]. Features that are not finite give NaN.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`supcon_loss`.

    Source: Radford et al. 2021 (CLIP, arXiv 2103.00020) without labels, ``symmetric``; He et al. 2020 (MoCo, arXiv
    1911.05722) with a queue as keys.

    Example:
        >>> image, text = (torch.nn.functional.normalize(torch.randn(8, 16), dim=-1) for _ in range(2))
        >>> loss = cross_contrast_loss(image, text, symmetric=True)
    """
    checks.check_features("anchors", anchors, "[N, D]")
    checks.check_keys(keys, anchors)
    n, m = anchors.shape[0], keys.shape[0]
    checks.check_anchor_offset(anchor_offset, views, n, m)
    if anchor_offset is None:
        check_attributes(attributes, ("anchor, N", n), ("key, M", m), "anchors", anchors)
        mask_shape, mask_sizes = "[N, M]", (n, m)
    else:
        check_attributes(attributes, ("sample, M / views", m // views), None, "anchors", anchors)
        mask_shape, mask_sizes = "[M / views, M / views]", (m // views, m // views)
    if mask is not None:
        checks.check_mask(mask, attributes, mask_shape, mask_sizes, denominator, "anchors", anchors)
    elif not attributes and anchor_offset is None and n != m:
        raise ValueError(f"attributes or mask must be given unless N = M: got N = {n} anchors and M = {m} keys")
    checks.check_temperature(temperature, "anchors", anchors)
    checks.check_variant(positives, denominator)
    checks.check_flag("symmetric", symmetric)
    if anchor_weights is not None:
        shape, size = ("[N + M]", n + m) if symmetric else ("[N]", n)
        checks.check_anchor_weights(anchor_weights, shape, size, "anchors", anchors)
    checks.check_execution(reduction, impl)

    if mask is None and not attributes:
        attributes = [instance_labels(m // views, anchor_offset is None, anchors.device)]
    inputs = LossInputs(anchors, keys, attributes, mask, views, anchor_offset)
    if _use_fused(impl, anchors.device):
        early = _early(reduction, anchor_weights is None)
        losses, _, positive_counts, _ = ops.operators.contrastive_fwd(
            *contrastive_arguments(inputs, temperature, positives, denominator, symmetric, early)
        )
    else:
        losses, positive_counts = _reference_losses(inputs, temperature, positives, denominator, symmetric, reduction)
    if losses.ndim == 0:
        return losses  # type: ignore[no-any-return]
    return _reduced(losses, _counting(anchor_weights, positive_counts, inputs.weights, reduction), reduction)


def pair_margin_loss(
    anchors: Tensor,
    keys: Tensor | None,
    attributes: Sequence[Attribute],
    *,
    margin: float = 1.0,
    reduction: Reduction = "mean",
    impl: Implementation = "auto",
) -> Tensor:
    """Pairwise margin loss: related pairs attract each other, the others repel each other up to a distance.

    With d = ||x_i - y_j||, R = sum_k w_k r_k(i, j) and W = sum_k w_k, the loss of an anchor is the mean over its pairs

        R d^2 + (W - R) max(0, margin - d)^2

    Source: Hadsell et al. 2006 (CVPR, equation 4), without its halves.

    Args:
        anchors: [N, D] features.
        keys: [M, D] other features, of the dtype of ``anchors``; None: the anchors against each other.
        attributes: what relates pairs, at least one, with values of N anchors and, as ``keys``, of M keys.
        margin: distance >= 0 from which pairs that are not related have loss 0, in the unit of the features.
        reduction: "mean" over the anchors; "has_positives": over those with related pairs, 0 if none has; "sum"; or
            "none".
        impl: "fused" kernels, the dense PyTorch "reference", or "auto": fused where there are kernels.

    Returns:
        The loss in the dtype of ``anchors`` (float32 for half precision): scalar, or for ``reduction="none"`` [N].

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`supcon_loss`.

    Example:
        >>> image, text = torch.randn(8, 16), torch.randn(5, 16)
        >>> findings = Attribute(torch.randint(0, 2, (8, 14)), Overlap(), keys=torch.randint(0, 2, (5, 14)))
        >>> loss = pair_margin_loss(image, text, [findings], margin=2.0)
    """
    checks.check_features("anchors", anchors, "[N, D]")
    counted_keys = None
    if keys is not None:
        checks.check_keys(keys, anchors)
        counted_keys = ("key, M", keys.shape[0])
    check_attributes(attributes, ("anchor, N", anchors.shape[0]), counted_keys, "anchors", anchors)
    if not attributes:
        raise ValueError("attributes must hold at least one Attribute, got none")
    check_number("margin", margin, zero_allowed=True)
    checks.check_execution(reduction, impl)

    inputs = LossInputs(anchors, keys, attributes, None, 1, 0 if keys is None else None)
    positive_counts = None
    if _use_fused(impl, anchors.device):
        losses, positive_counts = ops.operators.pair_margin_fwd(*pair_margin_arguments(inputs, margin))
    else:
        with _without_autocast(anchors.device.type):
            dense = dense_relations(inputs)
            losses = reference.pair_margin_losses(
                *for_reference(inputs), dense, inputs.weights, margin, inputs.anchor_offset
            )
            if reduction == "has_positives":
                positive_counts = reference.count_positives(dense, inputs.anchor_offset)
    return _reduced(losses, _counting(None, positive_counts, inputs.weights, reduction), reduction)


def _early(reduction: Reduction, every_anchor: bool) -> str:
    """Return which reduction the kernels take over: the mean or sum where every anchor counts alike."""
    return reduction if every_anchor and reduction in ("mean", "sum") else "none"


def _reference_losses(
    inputs: LossInputs,
    temperature: float | Tensor,
    positives: Positives,
    denominator: Denominator,
    symmetric: bool,
    reduction: Reduction,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of every anchor and, where the reduction needs them, its numbers of positives, [K, A]."""
    with _without_autocast(inputs.anchors.device.type):
        dense = dense_relations(inputs)
        losses = reference.contrastive_losses(
            *for_reference(inputs),
            dense,
            inputs.weights,
            temperature,
            inputs.anchor_offset,
            positives,
            denominator,
            symmetric,
        )
        if reduction != "has_positives":
            return losses, None
        return losses, reference.count_positives(dense, inputs.anchor_offset, symmetric)


def _use_fused(impl: Implementation, device: torch.device) -> bool:
    if impl == "reference":
        return False
    reason = extension.why_not_fused(device)
    if reason is None and not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        reason = "torch.func transforms are not supported by the kernels, use impl='reference'"
    if impl == "fused" and reason:
        raise RuntimeError(f"impl='fused' is not possible: {reason}")
    if reason and device.type == "cuda" and not torch.compiler.is_compiling():
        warn_of_reference(reason)
    return reason is None


@functools.cache  # once for each reason
def warn_of_reference(reason: str) -> None:
    """Warn that a GPU's kernels are not used though impl='auto' hoped for them."""
    warnings.warn(
        "the PyTorch reference, which stores N x N matrices, takes the place of the CUDA kernels: " + reason,
        stacklevel=5,  # of the loss's caller
    )


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context in which half precision is not chosen; not every device (meta) knows autocast."""
    return torch.autocast(device_type, enabled=False) if _knows_autocast(device_type) else nullcontext()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch.compile before 2.13 cannot trace it
def _knows_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


def _counting(
    weights: Tensor | None, positive_counts: Tensor | None, set_weights: Sequence[float], reduction: Reduction
) -> Tensor | None:
    """Return the weights of the anchors, 0 for those without positives where the reduction leaves them out."""
    if reduction != "has_positives":
        return weights
    assert positive_counts is not None
    has_positives = torch.zeros_like(positive_counts[0], dtype=torch.bool)
    for total, weight in zip(positive_counts, set_weights, strict=True):
        if weight > 0:
            has_positives = has_positives | (total > 0)
    return has_positives if weights is None else weights * has_positives


def _reduced(losses: Tensor, weights: Tensor | None, reduction: Reduction) -> Tensor:
    if weights is None:
        if reduction == "none":
            return losses
        return losses.sum() if reduction == "sum" else losses.mean()
    weights = weights.to(losses.dtype)
    losses = losses * weights
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    total = weights.sum()
    return losses.sum() / total.where(total > 0, 1)

"""The contrastive losses as functions: they check their arguments, choose the implementation and reduce."""

from __future__ import annotations

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
    own_views,
    pair_margin_arguments,
)
from mmcuda.relations import Attribute

Implementation = Literal["auto", "fused", "reference"]
ContrastMode = Literal["all", "one"]
Positives = Literal["outside", "inside"]
Denominator = Literal["all", "negatives", "one_positive"]
Reduction = Literal["none", "mean", "has_positives", "sum"]


def supcon_loss(
    features: Tensor,
    attributes: Sequence[Attribute] = (),
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    contrast_mode: ContrastMode = "all",
    base_temperature: float | None = None,
    positives: Positives = "outside",
    denominator: Denominator = "all",
    anchor_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    impl: Implementation = "auto",
) -> Tensor:
    """Supervised contrastive loss of a batch against itself, summed over attributes in one pass.

    With s_ij = x_i.x_j / tau over the other rows j and P_k(i) the positives of row i, the loss of an anchor is

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
        positives: summed "outside" the logarithm or "inside".
        denominator: sums "all" pairs, only the "negatives" (decoupled), or "one_positive" beside them (SINCERE).
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
        attributes = [own_views(samples, False, features.device)]
    inputs = LossInputs(features, None, attributes, mask, views, 0)
    if _use_fused(impl, features.device):
        early = _early(reduction, anchor_weights is None and contrast_mode == "all")
        losses, _, totals, _ = ops.operators.contrastive_fwd(
            *contrastive_arguments(inputs, temperature, positives, denominator, False, early)
        )
    else:
        losses, totals = _reference_losses(inputs, temperature, positives, denominator, False, reduction)
    scale = 1.0 if base_temperature is None else temperature / base_temperature
    if isinstance(scale, Tensor) or scale != 1:
        losses = losses * scale
    if losses.ndim == 0:
        return losses  # type: ignore[no-any-return]
    weights = None if anchor_weights is None else anchor_weights.repeat_interleave(views)
    weights = _counting(weights, totals, inputs.weights, reduction)
    if contrast_mode == "one":
        losses, weights = losses[::views], None if weights is None else weights[::views]
    reduced = _reduced(losses, weights, reduction)
    by_view = reduction == "none" and contrast_mode == "all" and features.ndim == 3
    return reduced.view(samples, views) if by_view else reduced


def cross_contrast_loss(
    rows: Tensor,
    columns: Tensor,
    attributes: Sequence[Attribute] = (),
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    positives: Positives = "outside",
    denominator: Denominator = "all",
    self_offset: int | None = None,
    views: int = 1,
    both_ways: bool = False,
    anchor_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    impl: Implementation = "auto",
) -> Tensor:
    """Contrastive loss of rows against other columns: image and text, a memory queue, a batch gathered from devices.

    The loss of a row is that of an anchor in :func:`supcon_loss`, with the columns as the others. With ``self_offset``
    the rows are among the columns: row i is column i + self_offset, and that pair is left out.

    Args:
        rows: [N, D] anchors.
        columns: [M, D], of the dtype of ``rows``.
        attributes: what makes positives, with values of N rows and, as ``columns``, of M columns; with ``self_offset``
            with values of the M / views samples of the columns. Empty: row i's only positive is column i (CLIP), or
            with ``self_offset`` its own other views (SimCLR).
        mask: dense relation instead of attributes, >= 0: [N, M]; with ``self_offset`` [M / views, M / views].
        temperature: tau > 0, a number or a tensor []; one that requires a gradient gets it.
        positives: summed "outside" the logarithm or "inside".
        denominator: sums "all" pairs, only the "negatives" (decoupled), or "one_positive" beside them (SINCERE).
        self_offset: the column that the first row is; None: no row is a column.
        views: views of a sample, adjacent in the columns; other than 1 only with ``self_offset``.
        both_ways: columns are anchors too, against the rows.
        anchor_weights: [N], how much each anchor counts; with ``both_ways`` [N + M], the rows' first.
        reduction: "mean", "has_positives", "sum" or "none", as in :func:`supcon_loss`.
        impl: "fused" kernels, the dense PyTorch "reference", or "auto": fused where there are kernels.

    Returns:
        The loss in the dtype of ``rows`` (float32 for half precision): scalar, or for ``reduction="none"`` [N], with
        ``both_ways`` [N + M]. Features that are not finite give NaN.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`supcon_loss`.

    Source: Radford et al. 2021 (CLIP, arXiv 2103.00020) without labels and ``both_ways``; He et al. 2020 (MoCo, arXiv
    1911.05722) with a queue as columns.

    Example:
        >>> image, text = (torch.nn.functional.normalize(torch.randn(8, 16), dim=-1) for _ in range(2))
        >>> loss = cross_contrast_loss(image, text, both_ways=True)
    """
    checks.check_features("rows", rows, "[N, D]")
    checks.check_columns(columns, rows)
    n, m = rows.shape[0], columns.shape[0]
    checks.check_self_offset(self_offset, views, n, m)
    if self_offset is None:
        check_attributes(attributes, ("row, N", n), ("column, M", m), "rows", rows)
        mask_shape, mask_sizes = "[N, M]", (n, m)
    else:
        check_attributes(attributes, ("sample, M / views", m // views), None, "rows", rows)
        mask_shape, mask_sizes = "[M / views, M / views]", (m // views, m // views)
    if mask is not None:
        checks.check_mask(mask, attributes, mask_shape, mask_sizes, denominator, "rows", rows)
    elif not attributes and self_offset is None and n != m:
        raise ValueError(f"attributes or mask must be given unless N = M: got N = {n} rows and M = {m} columns")
    checks.check_temperature(temperature, "rows", rows)
    checks.check_variant(positives, denominator)
    checks.check_flag("both_ways", both_ways)
    if anchor_weights is not None:
        shape, size = ("[N + M]", n + m) if both_ways else ("[N]", n)
        checks.check_anchor_weights(anchor_weights, shape, size, "rows", rows)
    checks.check_execution(reduction, impl)

    if mask is None and not attributes:
        attributes = [own_views(m // views, self_offset is None, rows.device)]
    inputs = LossInputs(rows, columns, attributes, mask, views, self_offset)
    if _use_fused(impl, rows.device):
        early = _early(reduction, anchor_weights is None)
        losses, _, totals, _ = ops.operators.contrastive_fwd(
            *contrastive_arguments(inputs, temperature, positives, denominator, both_ways, early)
        )
    else:
        losses, totals = _reference_losses(inputs, temperature, positives, denominator, both_ways, reduction)
    if losses.ndim == 0:
        return losses  # type: ignore[no-any-return]
    return _reduced(losses, _counting(anchor_weights, totals, inputs.weights, reduction), reduction)


def pair_margin_loss(
    rows: Tensor,
    columns: Tensor | None,
    attributes: Sequence[Attribute],
    *,
    margin: float = 1.0,
    reduction: Reduction = "mean",
    impl: Implementation = "auto",
) -> Tensor:
    """Pairwise margin loss: related pairs attract each other, the others repel each other up to a distance.

    With d = ||x_i - y_j||, R = sum_k w_k r_k(i, j) and W = sum_k w_k, the loss of a row is the mean over its pairs of

        R d^2 + (W - R) max(0, margin - d)^2

    Source: Hadsell et al. 2006 (CVPR, equation 4), without its halves.

    Args:
        rows: [N, D] features.
        columns: [M, D] other features, of the dtype of ``rows``; None: the rows against each other.
        attributes: what relates pairs, at least one, with values of N rows and, as ``columns``, of M columns.
        margin: distance >= 0 from which pairs that are not related have loss 0, in the unit of the features.
        reduction: "mean" over the rows; "has_positives": over those with related pairs, 0 if none has; "sum"; "none".
        impl: "fused" kernels, the dense PyTorch "reference", or "auto": fused where there are kernels.

    Returns:
        The loss in the dtype of ``rows`` (float32 for half precision): scalar, or for ``reduction="none"`` [N].

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`supcon_loss`.

    Example:
        >>> image, text = torch.randn(8, 16), torch.randn(5, 16)
        >>> findings = Attribute(torch.randint(0, 2, (8, 14)), Overlap(), columns=torch.randint(0, 2, (5, 14)))
        >>> loss = pair_margin_loss(image, text, [findings], margin=2.0)
    """
    checks.check_features("rows", rows, "[N, D]")
    counted_columns = None
    if columns is not None:
        checks.check_columns(columns, rows)
        counted_columns = ("column, M", columns.shape[0])
    check_attributes(attributes, ("row, N", rows.shape[0]), counted_columns, "rows", rows)
    if not attributes:
        raise ValueError("attributes must hold at least one Attribute, got none")
    check_number("margin", margin, zero_allowed=True)
    checks.check_execution(reduction, impl)

    inputs = LossInputs(rows, columns, attributes, None, 1, 0 if columns is None else None)
    totals = None
    if _use_fused(impl, rows.device):
        losses, totals = ops.operators.pair_margin_fwd(*pair_margin_arguments(inputs, margin))
    else:
        with _without_autocast(rows.device.type):
            dense = dense_relations(inputs)
            losses = reference.pair_margin_losses(
                *for_reference(inputs), dense, inputs.weights, margin, inputs.self_offset
            )
            if reduction == "has_positives":
                totals = reference.relation_totals(dense, inputs.self_offset)
    return _reduced(losses, _counting(None, totals, inputs.weights, reduction), reduction)


def _early(reduction: Reduction, every_anchor: bool) -> str:
    """Return which reduction the kernels take over: the mean or sum where every anchor counts alike."""
    return reduction if every_anchor and reduction in ("mean", "sum") else "none"


def _reference_losses(
    inputs: LossInputs,
    temperature: float | Tensor,
    positives: Positives,
    denominator: Denominator,
    both_ways: bool,
    reduction: Reduction,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of every anchor and, where the reduction needs them, its relations' totals [K, anchors]."""
    with _without_autocast(inputs.rows.device.type):
        dense = dense_relations(inputs)
        losses = reference.contrastive_losses(
            *for_reference(inputs),
            dense,
            inputs.weights,
            temperature,
            inputs.self_offset,
            positives,
            denominator,
            both_ways,
        )
        if reduction != "has_positives":
            return losses, None
        return losses, reference.relation_totals(dense, inputs.self_offset, both_ways)


def _use_fused(impl: Implementation, device: torch.device) -> bool:
    if impl == "reference":
        return False
    reason = extension.why_not_fused(device)
    if reason is None and not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        reason = "torch.func transforms are not supported by the kernels, use impl='reference'"
    if impl == "fused" and reason:
        raise RuntimeError(f"impl='fused' is not possible: {reason}")
    return reason is None


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context in which half precision is not chosen; not every device (meta) knows autocast."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def _counting(
    weights: Tensor | None, totals: Tensor | None, set_weights: Sequence[float], reduction: Reduction
) -> Tensor | None:
    """Return the weights of the anchors, 0 for those without positives where the reduction leaves them out."""
    if reduction != "has_positives":
        return weights
    assert totals is not None
    has_positives = torch.zeros_like(totals[0], dtype=torch.bool)
    for total, weight in zip(totals, set_weights, strict=True):
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

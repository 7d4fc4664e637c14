"""Supervised contrastive loss."""

from __future__ import annotations

from torch import Tensor

from mmcuda._native.checks import check_tensor
from mmcuda.functional import ContrastMode, Denominator, Implementation, Positives, Reduction, supcon_loss
from mmcuda.losses.base import SelfContrastLoss
from mmcuda.relations import Attribute, Equal


class SupConLoss(SelfContrastLoss):
    """Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362): a drop-in for SupContrast's.

    Same call, same defaults and same numbers, without an N x N matrix. Where its conventions differ from others':

    ===========================  =======================  ==========================  ================================
    .                            mmcuda                   SupContrast                 pytorch-metric-learning
    ===========================  =======================  ==========================  ================================
    anchor without positives     loss 0, in the mean      the same; NaN before its    left out of the mean:
                                                          pull request 142            ``reduction="has_positives"``
    scale of the loss            temperature /            the same                    none: ``base_temperature=None``
                                 base_temperature
    L2 normalisation             by the caller            by the caller               inside
    default temperature          0.07                     0.07                        0.1
    integer label -1             missing                  a class                     a class
    label NaN                    missing: positives are   no positives                no positives
                                 the sample's own views
    batch of a single class      the formula              the formula                 0
    ===========================  =======================  ==========================  ================================

    Args:
        temperature: tau > 0; a tensor or parameter is learnable, best with ``base_temperature=None``: otherwise the
            scale of the loss is learnt too.
        contrast_mode: anchors are "all" views, or only the first ("one").
        base_temperature: the loss is scaled by ``temperature / base_temperature``; None: not scaled.
        positives: the mean over positives is outside the logarithm ("out", the paper's L_out) or inside ("in", L_in).
        denominator: over "all" others, over "negatives" only (decoupled: Yeh et al. 2021, arXiv 2110.06848), or
            over the negatives and each positive by itself ("sincere", see :class:`SINCERELoss`).
        reduction: "mean" over all anchors, "has_positives" (over those that have any), "sum", or "none": [B, V], of
            embeddings [N], with ``contrast_mode="one"`` [B].
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Example:
        >>> features = torch.nn.functional.normalize(torch.randn(8, 2, 128), dim=-1)  # 8 images, 2 views
        >>> loss = SupConLoss(temperature=0.07)(features, torch.randint(0, 3, (8,)))
        >>> log_tau = torch.nn.Parameter(torch.tensor(0.07).log())  # learnt as a logarithm, tau stays positive
        >>> loss = SupConLoss(log_tau.exp(), base_temperature=None)(features, torch.randint(0, 3, (8,)))
    """

    repr_fields = ("temperature", "contrast_mode", "base_temperature", "positives", "denominator", "reduction", "impl")

    def __init__(
        self,
        temperature: float | Tensor = 0.07,
        contrast_mode: ContrastMode = "all",
        base_temperature: float | None = 0.07,
        *,
        positives: Positives = "out",
        denominator: Denominator = "all",
        reduction: Reduction = "mean",
        impl: Implementation = "auto",
    ) -> None:
        super().__init__(temperature, reduction=reduction, impl=impl)
        self.contrast_mode: ContrastMode = contrast_mode
        self.base_temperature = base_temperature
        self.positives: Positives = positives
        self.denominator: Denominator = denominator

    def forward(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
        anchor_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the loss.

        Args:
            features: [B, V, ...] views, dimensions beyond the third flattened, or [N, D] embeddings; L2-normalised.
            labels: [B] or [B, 1]; None, with no mask: every sample is its own class (SimCLR).
            mask: [B, B], ``mask[i, j]`` = 1 where j is a positive of i; may be asymmetric or soft.
            anchor_weights: [B] >= 0, the weight of each sample as an anchor in the reduction.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype, device or value; labels together with mask; one view a sample with neither
                of them (there would be no positives); a wrong setting of the module.
        """
        check_tensor("features", features)
        if labels is None and mask is None and (features.ndim == 2 or (features.ndim > 2 and features.shape[1] == 1)):
            raise ValueError(f"labels or mask must be given: features {list(features.shape)} have one view a sample")
        if labels is not None:
            check_tensor("labels", labels)
        return supcon_loss(
            features,
            [] if labels is None else [Attribute(labels.flatten(), Equal())],
            mask=mask,
            temperature=self.temperature,
            contrast_mode=self.contrast_mode,
            base_temperature=self.base_temperature,
            positives=self.positives,
            denominator=self.denominator,
            anchor_weights=anchor_weights,
            reduction=self.reduction,
            impl=self.impl,
        )

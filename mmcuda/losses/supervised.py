"""Supervised losses of a batch against itself: positives are made by labels of one kind or another."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmcuda.functional import ContrastMode, Denominator, Implementation, Positives, Reduction
from mmcuda.labels import Equal, LabelSet, Overlap, Rbf, Relation, Within, check_number, check_relation, check_tensor
from mmcuda.losses.base import SelfContrastLoss


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
        positives: the mean over positives is "outside" the logarithm (the paper's L_out) or "inside" (L_in).
        denominator: over "all" others, over "negatives" only (decoupled: Yeh et al. 2021, arXiv 2110.06848), or
            over the negatives and "one_positive" (SINCERE, see :class:`SINCERELoss`).
        reduction: "mean" over all anchors, "has_positives" (over those that have any), "sum", or "none": [B, V], of
            embeddings [N], with ``contrast_mode="one"`` [B].
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Example:
        >>> features = torch.nn.functional.normalize(torch.randn(8, 2, 128), dim=-1)  # 8 images, 2 views
        >>> loss = SupConLoss(temperature=0.07)(features, torch.randint(0, 3, (8,)))
        >>> log_tau = torch.nn.Parameter(torch.tensor(0.07).log())  # learnt as a logarithm, tau stays positive
        >>> loss = SupConLoss(log_tau.exp(), base_temperature=None)(features, torch.randint(0, 3, (8,)))
    """

    shown = ("temperature", "contrast_mode", "base_temperature", "positives", "denominator", "reduction", "impl")

    def __init__(
        self,
        temperature: float | Tensor = 0.07,
        contrast_mode: ContrastMode = "all",
        base_temperature: float | None = 0.07,
        *,
        positives: Positives = "outside",
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
        return self.self_contrast(
            features,
            [] if labels is None else [LabelSet(labels.flatten(), Equal())],
            mask=mask,
            contrast_mode=self.contrast_mode,
            base_temperature=self.base_temperature,
            positives=self.positives,
            denominator=self.denominator,
            anchor_weights=anchor_weights,
        )


class SINCERELoss(SelfContrastLoss):
    """SINCERE (Feeney & Hughes 2023, arXiv 2309.14277): each positive competes with the negatives, not with positives.

    Supervised contrastive loss pushes an anchor's positives apart, since each is in the denominator of the others; here
    it is not. With one positive an anchor this is NT-Xent. pytorch-metric-learning's NTXentLoss is this sum over pairs,
    but divides by their number: the same where every anchor has as many positives.

    Args:
        temperature: tau > 0; a tensor or parameter is learnable.
        reduction: "mean" over all anchors, "has_positives" (over those that have any), "sum", or "none" ([B, V]).
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Example:
        >>> features = torch.nn.functional.normalize(torch.randn(8, 2, 128), dim=-1)  # 8 images, 2 views
        >>> loss = SINCERELoss()(features, torch.randint(0, 3, (8,)))
    """

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the loss.

        Args:
            features: [B, V, D] views of each sample, or [N, D] embeddings; L2-normalised.
            labels: [B]; -1 (NaN in floating labels) is missing: a sample's own other views are its positives.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype or device, or a wrong setting of the module.
        """
        return self.self_contrast(features, [LabelSet(labels, Equal())], denominator="one_positive")


class MultiLabelSupConLoss(SelfContrastLoss):
    """Supervised contrastive loss of multi-label samples: a positive counts by the overlap of the two label sets.

    The overlap is |both| / |either| (Jaccard), so samples with the same findings attract each other most and those
    with none in common not at all; two samples with no finding overlap fully. Cells that are not known in both are
    left out. The rest is L_out of Khosla et al. (2020, arXiv 2004.11362) with these weights instead of 0 and 1.

    Args:
        temperature: tau > 0; a tensor or parameter is learnable.
        reduction: "mean" over all anchors, "has_positives" (over those that have any), "sum", or "none" ([B, V]).
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Example:
        >>> features = torch.nn.functional.normalize(torch.randn(3, 2, 128), dim=-1)  # 3 images, 2 views
        >>> findings = torch.tensor([[1, 1, 0], [1, 0, 0], [0, -1, 1]])  # -1: not read
        >>> loss = MultiLabelSupConLoss()(features, findings)
    """

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the loss.

        Args:
            features: [B, V, D] views of each sample, or [N, D] embeddings; L2-normalised.
            labels: [B, C] multi-hot, 0 and 1; a cell of -1 (or NaN) is not known.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype, device or value, or a wrong setting of the module.
        """
        return self.self_contrast(features, [LabelSet(labels, Overlap())])


class ContinuousSupConLoss(SelfContrastLoss):
    """Supervised contrastive loss of a continuous value: samples attract each other by how close their values are.

    The idea is that of y-aware InfoNCE (Dufumier et al. 2021, arXiv 2106.08808). Here it is L_out of Khosla et al.
    (2020, arXiv 2004.11362) with weights exp(-(a - b)^2 / 2 sigma^2) instead of 0 and 1.

    Args:
        relation: ``Rbf(sigma)``, or a number: its sigma, in the unit of the value; or ``Within(tolerance)``: positives
            differ by at most that, and all count alike.
        temperature: tau > 0; a tensor or parameter is learnable.
        reduction: "mean" over all anchors, "has_positives" (over those that have any), "sum", or "none" ([B, V]).
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Raises:
        TypeError: ``relation`` is something else.
        ValueError: sigma is not positive and finite.

    Example:
        >>> features = torch.nn.functional.normalize(torch.randn(8, 2, 128), dim=-1)  # 8 images, 2 views
        >>> thickness = 300 + 60 * torch.randn(8)  # micrometres
        >>> loss = ContinuousSupConLoss(25.0)(features, thickness)
    """

    shown = ("relation", *SelfContrastLoss.shown)

    def __init__(
        self,
        relation: Rbf | Within | float,
        temperature: float | Tensor = 0.07,
        *,
        reduction: Reduction = "mean",
        impl: Implementation = "auto",
    ) -> None:
        super().__init__(temperature, reduction=reduction, impl=impl)
        if isinstance(relation, int | float):
            relation = Rbf(relation)
        if not isinstance(relation, Rbf | Within):
            raise TypeError(f"relation must be Rbf(sigma), Within(tolerance) or a number, got {relation!r}")
        self.relation = relation

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the loss.

        Args:
            features: [B, V, D] views of each sample, or [N, D] embeddings; L2-normalised.
            labels: [B] values; NaN (-1 in integers) is missing: a sample's own other views are its positives.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype or device, or a wrong setting of the module.
        """
        return self.self_contrast(features, [LabelSet(labels, self.relation)])


class ClinicalSupConLoss(SelfContrastLoss):
    """Weighted sum of supervised contrastive losses, one per clinical value, in one pass over the batch.

    Source: Kokilepersaud et al. 2023 (arXiv 2305.15154). A missing value (NaN; -1 in integer labels) makes no positives
    but the sample's own other views.

    Args:
        relations: per clinical value the relation that makes positives: ``Equal()``, ``Within(tolerance)``,
            ``Rbf(sigma)`` or ``Overlap()``.
        weights: per clinical value its weight; 1 where none is given.
        temperature: tau > 0; a tensor or parameter is learnable, best with ``base_temperature=None``.
        base_temperature: the loss is scaled by ``temperature / base_temperature``; None: not scaled.
        reduction: "mean" over all anchors, "has_positives" (over those that have any), "sum", or "none" ([B, V]).
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Raises:
        TypeError: a relation or a weight is something else.
        ValueError: no relation, or a weight that is negative, not finite or of an unknown clinical value.

    Example:
        >>> criterion = ClinicalSupConLoss({"bcva": Equal(), "cst": Within(25.0)}, weights={"cst": 0.5})
        >>> features = torch.nn.functional.normalize(torch.randn(8, 2, 128), dim=-1)
        >>> loss = criterion(features, {"bcva": torch.randint(27, 100, (8,)), "cst": 300 + 100 * torch.rand(8)})
    """

    shown = ("temperature", "base_temperature", "reduction", "impl")

    def __init__(
        self,
        relations: Mapping[str, Relation],
        weights: Mapping[str, float] | None = None,
        temperature: float | Tensor = 0.07,
        base_temperature: float | None = 0.07,
        *,
        reduction: Reduction = "mean",
        impl: Implementation = "auto",
    ) -> None:
        super().__init__(temperature, reduction=reduction, impl=impl)
        if not relations:
            raise ValueError("relations must name at least one clinical value")
        weights = dict(weights or {})
        if unknown := weights.keys() - relations.keys():
            raise ValueError(f"weights must be of {sorted(relations)}, got also {sorted(unknown)}")
        for name, relation in relations.items():
            check_relation(f"relations[{name!r}]", relation)
        for name, weight in weights.items():
            check_number(f"weights[{name!r}]", weight, zero_allowed=True)
        self.relations = dict(relations)
        self.weights = {name: float(weights.get(name, 1.0)) for name in relations}
        self.base_temperature = base_temperature

    def forward(self, features: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """Return the loss.

        Args:
            features: [B, V, D] views of each sample, or [N, D] embeddings; L2-normalised.
            labels: per clinical value a tensor [B], with ``Overlap()`` [B, C]; others are not looked at.

        Raises:
            TypeError: labels is not a mapping, or an argument is not a tensor.
            ValueError: wrong shape, dtype or device; a clinical value without a tensor; a wrong setting of the module.
        """
        if not isinstance(labels, Mapping):
            raise TypeError(f"labels must map clinical values to tensors, got {type(labels).__name__}")
        if absent := self.relations.keys() - labels.keys():
            raise ValueError(f"labels must have {sorted(self.relations)}, got no {sorted(absent)}")
        label_sets = [
            LabelSet(labels[name], relation, self.weights[name], f"labels[{name!r}]")
            for name, relation in self.relations.items()
        ]
        return self.self_contrast(features, label_sets, base_temperature=self.base_temperature)

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        terms = (f"{self.weights[name]:g} * {name} ({relation})" for name, relation in self.relations.items())
        return f"{' + '.join(terms)}, {super().extra_repr()}"

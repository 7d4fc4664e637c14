"""Supervised contrastive loss of several clinical values."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmcuda._native.checks import check_number
from mmcuda.functional import Implementation, Reduction, supcon_loss
from mmcuda.losses.base import SelfContrastLoss
from mmcuda.relations import Attribute, Relation, check_relation


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

    repr_fields = ("temperature", "base_temperature", "reduction", "impl")

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
        attributes = [
            Attribute(labels[name], relation, self.weights[name], f"labels[{name!r}]")
            for name, relation in self.relations.items()
        ]
        return supcon_loss(
            features,
            attributes,
            base_temperature=self.base_temperature,
            temperature=self.temperature,
            reduction=self.reduction,
            impl=self.impl,
        )

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        terms = (f"{self.weights[name]:g} * {name} ({relation})" for name, relation in self.relations.items())
        return f"{' + '.join(terms)}, {super().extra_repr()}"

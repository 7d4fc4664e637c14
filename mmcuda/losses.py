"""The losses as modules."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmcuda.functional import ContrastMode, Implementation, supcon_loss
from mmcuda.labels import Equal, LabelSet, Relation, Within, check_number, check_tensor


class SupConLoss(nn.Module):
    """Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362, L_out): a drop-in for SupContrast's.

    Same call and same numbers, without an N x N matrix. One convention differs: a label that is missing (-1 in integer
    labels, NaN in floating ones) makes no positives but the sample's own other views.

    Args:
        temperature: tau > 0.
        contrast_mode: anchors are "all" views, or only the first ("one").
        base_temperature: the loss is scaled by ``temperature / base_temperature``.
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Example:
        >>> features = torch.nn.functional.normalize(torch.randn(8, 2, 128), dim=-1)  # 8 images, 2 views
        >>> loss = SupConLoss(temperature=0.07)(features, torch.randint(0, 3, (8,)))
    """

    def __init__(
        self,
        temperature: float = 0.07,
        contrast_mode: ContrastMode = "all",
        base_temperature: float = 0.07,
        impl: Implementation = "auto",
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.contrast_mode: ContrastMode = contrast_mode
        self.base_temperature = base_temperature
        self.impl: Implementation = impl

    def forward(self, features: Tensor, labels: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the scalar loss.

        Args:
            features: [B, V, ...] L2-normalised; dimensions beyond the third are flattened.
            labels: [B]; None, with no mask: every sample is its own class (SimCLR).
            mask: [B, B], ``mask[i, j]`` = 1 where j is a positive of i; may be asymmetric or soft.

        Raises:
            ValueError: wrong shape or value, or labels together with mask.
        """
        check_tensor("features", features)
        if labels is not None:
            check_tensor("labels", labels)
        if features.ndim < 3:
            raise ValueError(f"features must be [B, V, ...], at least 3 dimensions, got shape {list(features.shape)}")
        return supcon_loss(
            features.flatten(2),
            [] if labels is None else [LabelSet(labels.flatten(), Equal())],
            mask=mask,
            temperature=self.temperature,
            contrast_mode=self.contrast_mode,
            base_temperature=self.base_temperature,
            impl=self.impl,
        )

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"temperature={self.temperature}, contrast_mode={self.contrast_mode!r}"


class ClinicalSupConLoss(nn.Module):
    """Weighted sum of supervised contrastive losses, one per clinical value, in one pass over the batch.

    Source: Kokilepersaud et al. 2023 (arXiv 2305.15154). A missing value (NaN; -1 in integer labels) makes no positives
    but the sample's own other views.

    Args:
        relations: per clinical value the relation that makes positives, ``Equal()`` or ``Within(tolerance)``.
        weights: per clinical value its weight; 1 where none is given.
        temperature: tau > 0.
        base_temperature: the loss is scaled by ``temperature / base_temperature``.
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Raises:
        ValueError: no relation, or a weight that is negative, not finite or of an unknown clinical value.

    Example:
        >>> criterion = ClinicalSupConLoss({"bcva": Equal(), "cst": Within(25.0)}, weights={"cst": 0.5})
        >>> features = torch.nn.functional.normalize(torch.randn(8, 2, 128), dim=-1)
        >>> loss = criterion(features, {"bcva": torch.randint(27, 100, (8,)), "cst": 300 + 100 * torch.rand(8)})
    """

    def __init__(
        self,
        relations: Mapping[str, Relation],
        weights: Mapping[str, float] | None = None,
        temperature: float = 0.07,
        base_temperature: float = 0.07,
        impl: Implementation = "auto",
    ) -> None:
        super().__init__()
        if not relations:
            raise ValueError("relations must name at least one clinical value")
        weights = dict(weights or {})
        if unknown := weights.keys() - relations.keys():
            raise ValueError(f"weights must be of {sorted(relations)}, got also {sorted(unknown)}")
        for name, relation in relations.items():
            if not isinstance(relation, Equal | Within):
                raise TypeError(f"relations[{name!r}] must be Equal() or Within(tolerance), got {relation!r}")
        for name, weight in weights.items():
            check_number(f"weights[{name!r}]", weight, zero_allowed=True)
        self.relations = dict(relations)
        self.weights = {name: float(weights.get(name, 1.0)) for name in relations}
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.impl: Implementation = impl

    def forward(self, features: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss.

        Args:
            features: [B, V, D] L2-normalised.
            labels: per clinical value a tensor [B].

        Raises:
            ValueError: wrong shape or value, or a clinical value without a tensor.
        """
        if not isinstance(labels, Mapping):
            raise TypeError(f"labels must map clinical values to tensors, got {type(labels).__name__}")
        if absent := self.relations.keys() - labels.keys():
            raise ValueError(f"labels must have {sorted(self.relations)}, got no {sorted(absent)}")
        label_sets = [
            LabelSet(labels[name], relation, self.weights[name], f"labels[{name!r}]")
            for name, relation in self.relations.items()
        ]
        return supcon_loss(
            features,
            label_sets,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            impl=self.impl,
        )

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        terms = (f"{self.weights[name]:g} * {name} ({relation})" for name, relation in self.relations.items())
        return f"{' + '.join(terms)}, temperature={self.temperature}"

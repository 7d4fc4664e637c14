"""Supervised contrastive loss of a continuous value."""

from __future__ import annotations

from torch import Tensor

from mmcuda.functional import Implementation, Reduction, supcon_loss
from mmcuda.losses.base import SelfContrastLoss
from mmcuda.relations import Attribute, Rbf, Within


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

    repr_fields = ("relation", *SelfContrastLoss.repr_fields)

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
        return supcon_loss(
            features,
            [Attribute(labels, self.relation)],
            temperature=self.temperature,
            reduction=self.reduction,
            impl=self.impl,
        )

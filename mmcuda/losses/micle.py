"""MICLe's loss: the images of one bag find each other."""

from __future__ import annotations

from torch import Tensor

from mmcuda.functional import Implementation, Reduction, supcon_loss
from mmcuda.losses.base import SelfContrastLoss
from mmcuda.relations import Attribute, Equal


class MICLeLoss(SelfContrastLoss):
    """Multi-instance contrastive learning (Azizi et al. 2021, arXiv 2101.05224): positives are images of one bag.

    A bag is what shows the same thing, as the images of one patient and condition. MICLe draws two distinct images of
    each bag as the two views of one sample; here a bag may have any number of images in the batch, each with any
    number of views, and all of them are positives of each other.

    Args:
        temperature: tau > 0; a tensor or parameter is learnable.
        reduction: "mean" over all anchors, "has_positives" (over those that have any), "sum", or "none" ([B, V]).
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Example:
        >>> features = torch.nn.functional.normalize(torch.randn(6, 2, 128), dim=-1)  # 6 images, 2 views
        >>> loss = MICLeLoss()(features, torch.tensor([17, 17, 17, 42, 42, -1]))  # of patients 17, 42, unknown
    """

    def __init__(
        self, temperature: float | Tensor = 0.1, *, reduction: Reduction = "mean", impl: Implementation = "auto"
    ) -> None:
        super().__init__(temperature, reduction=reduction, impl=impl)

    def forward(self, features: Tensor, bags: Tensor) -> Tensor:
        """Return the loss.

        Args:
            features: [B, V, D] views of each image, or [N, D] one view of each; L2-normalised.
            bags: [B] bag ids; -1 (NaN in floating ids): a bag of its own, whose positives are its own other views.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype or device, or a wrong setting of the module.
        """
        return supcon_loss(
            features,
            [Attribute(bags, Equal(), name="bags")],
            temperature=self.temperature,
            reduction=self.reduction,
            impl=self.impl,
        )

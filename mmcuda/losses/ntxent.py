"""NT-Xent, SimCLR's loss: the two views of an image find each other."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcuda._native.checks import check_tensor
from mmcuda.functional import Implementation, Reduction, supcon_loss
from mmcuda.losses.base import SelfContrastLoss, check_pairs


class NTXentLoss(SelfContrastLoss):
    """SimCLR's loss (Chen et al. 2020, arXiv 2002.05709, equation 1): the two views of an image find each other.

    pytorch-metric-learning's NTXentLoss gives the same number for ``torch.cat([first, second])`` with labels
    ``torch.arange(B).repeat(2)``. There, labels may make several positives an anchor: that is :class:`SINCERELoss`.

    Args:
        temperature: tau > 0; a tensor or parameter is learnable.
        reduction: "mean" over all views, "has_positives" (the same here), "sum", or "none" ([B, 2]).
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.supcon_loss`.

    Example:
        >>> first, second = torch.nn.functional.normalize(torch.randn(2, 8, 128), dim=-1)  # 8 images, each twice
        >>> loss = NTXentLoss(temperature=0.1)(first, second)
    """

    def __init__(
        self, temperature: float | Tensor = 0.1, *, reduction: Reduction = "mean", impl: Implementation = "auto"
    ) -> None:
        super().__init__(temperature, reduction=reduction, impl=impl)

    def forward(self, features: Tensor, second: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            features: [B, 2, D] both views, or [B, D] the first; L2-normalised.
            second: [B, D] the second views, where ``features`` has the first.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype or device, or a wrong setting of the module.
        """
        if second is not None:
            check_pairs("features", features, "second", second)
            features = torch.stack([features, second], dim=1)
        check_tensor("features", features)
        if features.ndim != 3 or features.shape[1] != 2:
            wanted = "[B, 2, D], or [B, D] beside second"
            raise ValueError(f"features must be {wanted}, got shape {list(features.shape)}")
        return supcon_loss(features, [], temperature=self.temperature, reduction=self.reduction, impl=self.impl)

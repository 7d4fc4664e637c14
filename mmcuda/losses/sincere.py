"""SINCERE: supervised contrastive loss whose positives do not compete with each other."""

from __future__ import annotations

from torch import Tensor

from mmcuda.functional import supcon_loss
from mmcuda.losses.base import SelfContrastLoss
from mmcuda.relations import Attribute, Equal


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
        return supcon_loss(
            features,
            [Attribute(labels, Equal())],
            denominator="sincere",
            temperature=self.temperature,
            reduction=self.reduction,
            impl=self.impl,
        )

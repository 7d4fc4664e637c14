"""Supervised contrastive loss of samples with several labels each."""

from __future__ import annotations

from torch import Tensor

from mmcuda.functional import supcon_loss
from mmcuda.losses.base import SelfContrastLoss
from mmcuda.relations import Attribute, Overlap


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
        return supcon_loss(
            features,
            [Attribute(labels, Overlap())],
            temperature=self.temperature,
            reduction=self.reduction,
            impl=self.impl,
        )

"""Pairwise margin loss."""

from __future__ import annotations

from torch import Tensor

from mmcuda._native.checks import check_features
from mmcuda.functional import Implementation, Reduction, pair_margin_loss
from mmcuda.losses.base import ContrastiveLoss, check_labels, check_pairs, classes_of_pairs
from mmcuda.relations import Attribute, Equal


class PairMarginLoss(ContrastiveLoss):
    """Pairwise margin loss: d^2 for a pair of one class, max(0, margin - d)^2 otherwise, mean over all pairs.

    d is the Euclidean distance of the two embeddings. Source: Hadsell, Chopra & LeCun 2006 (CVPR,
    "Dimensionality reduction by learning an invariant mapping"), without their factor 1/2. pytorch-metric-learning's
    ContrastiveLoss does not square, and averages positives and negatives apart.

    Args:
        margin: >= 0, the distance that pairs of different classes should have at least, in the unit of the embeddings
            (L2-normalised ones are at most 2 apart).
        reduction: "mean" over all anchors, "has_positives" (over those that have any), "sum", or "none" ([N]).
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.pair_margin_loss`.

    Example:
        >>> image, text = torch.randn(2, 8, 128)
        >>> loss = PairMarginLoss(margin=1.0)(image, torch.randint(0, 3, (8,)), text)
    """

    repr_fields = ("margin", "reduction", "impl")

    def __init__(self, margin: float = 1.0, *, reduction: Reduction = "mean", impl: Implementation = "auto") -> None:
        super().__init__(reduction, impl)
        self.margin = margin

    def forward(
        self, features: Tensor, labels: Tensor, others: Tensor | None = None, other_labels: Tensor | None = None
    ) -> Tensor:
        """Return the loss.

        Args:
            features: [N, D] embeddings, as of images.
            labels: [N] their classes; -1 (NaN in floating labels) is missing: positive to its own text only.
            others: [M, D] embeddings to compare with, as of texts; None: the features with each other.
            other_labels: [M] their classes; None: others[i] belongs to features[i] and shares its label (M = N).

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype or device, other_labels without others, or a wrong setting of the module.
        """
        check_features("features", features, "[N, D]")
        check_labels("labels", labels, "[N]", len(features))
        if others is None:
            if other_labels is not None:
                raise ValueError("other_labels must come with others, got no others")
        elif other_labels is None:
            check_pairs("features", features, "others", others)
            labels = other_labels = classes_of_pairs(labels)
        else:
            check_pairs("features", features, "others", others, as_many=False)
            check_labels("other_labels", other_labels, "[M]", len(others))
            if other_labels.is_floating_point() != labels.is_floating_point():
                raise ValueError(
                    f"other_labels must be floating if labels are, {labels.dtype}, got {other_labels.dtype}"
                )
        attribute = Attribute(labels, Equal(), keys=other_labels)
        return pair_margin_loss(
            features, others, [attribute], margin=self.margin, reduction=self.reduction, impl=self.impl
        )

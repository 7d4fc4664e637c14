"""Losses of one set of embeddings against another, as images against texts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmcuda.checks import check_features
from mmcuda.functional import Implementation, Reduction, cross_contrast_loss, pair_margin_loss
from mmcuda.labels import Equal, LabelSet, check_number
from mmcuda.losses.base import Loss, check_labels, check_pairs, classes_of_pairs


class ClipLoss(Loss):
    """CLIP's loss (Radford et al. 2021, arXiv 2103.00020): each image finds its text, each text its image.

    The mean of both directions' cross-entropies, over logits that are scaled by a learnable 1 / tau. What is learnt is
    its logarithm, ``logit_scale``, as in CLIP's checkpoints; 1 / tau never exceeds 100.

    Args:
        temperature: the first tau > 0, at least 0.01. Later ones: ``loss.temperature``.
        reduction: "mean" over images and texts, "has_positives" (the same here), "sum", or "none": [2N], the images
            first.
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.cross_contrast_loss`.

    Raises:
        TypeError: ``temperature`` is not a number.
        ValueError: ``temperature`` is below 0.01 or not finite.

    Example:
        >>> image, text = torch.nn.functional.normalize(torch.randn(2, 8, 128), dim=-1)
        >>> criterion = ClipLoss()  # give criterion.parameters() to the optimiser too
        >>> loss = criterion(image, text)
    """

    MAX_LOG_SCALE = math.log(100.0)

    def __init__(
        self, temperature: float = 0.07, *, reduction: Reduction = "mean", impl: Implementation = "auto"
    ) -> None:
        super().__init__(reduction, impl)
        check_number("temperature", temperature, zero_allowed=False)
        if temperature < 0.01:
            raise ValueError(f"temperature must be at least 0.01, got {temperature}")
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def temperature(self) -> Tensor:
        """The present tau, 0-dim, differentiable."""
        return (-self.logit_scale).exp()

    def forward(self, image: Tensor, text: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss. Where ``logit_scale`` exceeds log 100, it is set to that first.

        Args:
            image: [N, D] embeddings, L2-normalised.
            text: [N, D] embeddings of their texts, L2-normalised.
            labels: [N]; pairs with equal labels are positives of each other; -1 (NaN in floating labels) is missing:
                the pair has no positives but itself. None: every pair is its own class.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype or device, or a wrong setting of the module.
        """
        check_pairs("image", image, "text", text)
        label_sets = []
        if labels is not None:
            check_labels("labels", labels, "[N]", len(image))
            classes = classes_of_pairs(labels)
            label_sets = [LabelSet(classes, Equal(), columns=classes)]
        with torch.no_grad():  # and not clamp(): beyond it there would be no gradient to come back
            self.logit_scale.clamp_(max=self.MAX_LOG_SCALE)
        return cross_contrast_loss(
            image,
            text,
            label_sets,
            temperature=self.temperature,
            both_ways=True,
            reduction=self.reduction,
            impl=self.impl,
        )


class PairMarginLoss(Loss):
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

    shown = ("margin", "reduction", "impl")

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
        label_set = LabelSet(labels, Equal(), columns=other_labels)
        return pair_margin_loss(
            features, others, [label_set], margin=self.margin, reduction=self.reduction, impl=self.impl
        )

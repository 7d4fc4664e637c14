"""CLIP's loss of images against their texts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmcuda._native.checks import check_number
from mmcuda.functional import Implementation, Reduction, cross_contrast_loss
from mmcuda.losses.base import ContrastiveLoss, check_labels, check_pairs, classes_of_pairs
from mmcuda.relations import Attribute, Equal


class ClipLoss(ContrastiveLoss):
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
        attributes = []
        if labels is not None:
            check_labels("labels", labels, "[N]", len(image))
            classes = classes_of_pairs(labels)
            attributes = [Attribute(classes, Equal(), keys=classes)]
        with torch.no_grad():  # and not clamp(): beyond it there would be no gradient to come back
            self.logit_scale.clamp_(max=self.MAX_LOG_SCALE)
        return cross_contrast_loss(
            image,
            text,
            attributes,
            temperature=self.temperature,
            symmetric=True,
            reduction=self.reduction,
            impl=self.impl,
        )

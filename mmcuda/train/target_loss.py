"""The loss of a classifier of several targets, of which an image may have any number of labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcuda.train.finetune_config import ClassWeights, Loss


class TargetLoss:
    """Cross-entropy of the labelled cells of [B, T]; 0 (with a zero gradient) if there are none.

    One logit z a target is as good as two: softmax over (0, z) is sigmoid(z), so that the two-logit cross-entropy of a
    target is its binary cross-entropy. With p the probability of the right class,

        cell = weight of the class * (1 - p)^gamma * -log p        (focal: Lin et al., ICCV 2017, equation 4)

    Args:
        loss: bce: mean over the labelled cells; ce: mean over the labelled cells of a target, then over targets.
        class_weights: balanced: weight n / (2 n_class), so that both classes of a target weigh alike.
        focal_gamma: gamma, at least 0; 0 is plain cross-entropy.
        targets: [n, T] of the training images, in {0, 1, NaN}; both classes of each are counted in it.
    """

    def __init__(
        self, loss: Loss, class_weights: ClassWeights, focal_gamma: float, targets: npt.NDArray[np.float32]
    ) -> None:
        self.loss, self.focal_gamma = loss, focal_gamma
        counts = np.stack([(targets == label).sum(axis=0) for label in (0, 1)])  # [2, T]
        weights = counts.sum(axis=0) / (2 * np.maximum(counts, 1)) if class_weights == "balanced" else counts * 0 + 1
        self.negative_weight, self.positive_weight = torch.from_numpy(weights.astype(np.float32))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of ``logits`` [B, T] for ``targets`` [B, T] in {0, 1, NaN}, NaN = no label."""
        labelled = targets.isfinite()
        positive = targets == 1
        towards = torch.where(positive, logits, -logits)  # the logit of the right class
        # log(1 - p) = logsigmoid(-towards): finite where 1 - p has already rounded to 0
        focus = torch.exp(self.focal_gamma * F.logsigmoid(-towards)) if self.focal_gamma else 1.0
        weight = torch.where(positive, self.positive_weight.to(logits), self.negative_weight.to(logits)) * labelled
        cells = -F.logsigmoid(towards) * focus * weight
        if self.loss == "bce":
            return cells.sum() / labelled.sum().clamp(min=1)
        of_targets = cells.sum(dim=0) / labelled.sum(dim=0).clamp(min=1)
        return of_targets.sum() / labelled.any(dim=0).sum().clamp(min=1)

"""The loss of a classifier of several targets, of which an image may have any number of labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcuda.targets import Targets, logit_columns
from mmcuda.train.finetune_config import ClassWeights, Loss


class TargetLoss:
    """The losses of the labelled cells of [B, T], as of ``Target.loss``; 0 (with a zero gradient) if there are none.

    Args:
        loss: bce: mean over the labelled cells; ce: mean over the labelled cells of a target, then over targets.
        class_weights: balanced: weight n / (C n_class), so that all C classes of a target weigh alike.
        focal_gamma: exponent of the focal loss, at least 0; 0 is plain cross-entropy.
        targets: the T targets, fitted to the training labels.
        truth: [n, T] of the training images, NaN = no label; the classes are counted in it.
    """

    def __init__(
        self,
        loss: Loss,
        class_weights: ClassWeights,
        focal_gamma: float,
        targets: Targets,
        truth: npt.NDArray[np.float32],
    ) -> None:
        self.loss, self.focal_gamma, self.targets = loss, focal_gamma, targets
        self.class_weights: list[Tensor | None] = [
            torch.from_numpy(target.class_weights(values).astype(np.float32)) if class_weights == "balanced" else None
            for target, values in zip(targets.values(), truth.T, strict=True)
        ]

    def __call__(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the loss of ``logits`` [B, logits] for ``truth`` [B, T], NaN = no label."""
        labelled = truth.isfinite()
        known = torch.where(labelled, truth, 0)
        columns = logit_columns(self.targets)
        of_targets = []
        for t, (name, target) in enumerate(self.targets.items()):
            weights = self.class_weights[t]
            weights = None if weights is None else weights.to(logits)
            losses = target.loss(logits[:, columns[name]], known[:, t], weights, self.focal_gamma)
            of_targets.append(losses * labelled[:, t])
        cells = torch.stack(of_targets, dim=1)
        if self.loss == "bce":
            return cells.sum() / labelled.sum().clamp(min=1)
        means = cells.sum(dim=0) / labelled.sum(dim=0).clamp(min=1)
        return means.sum() / labelled.any(dim=0).sum().clamp(min=1)

"""Targets of ordered classes, such as grades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit, logit
from torch import Tensor

from mmcuda.evaluate.metrics import weighted_kappa, weighted_mae
from mmcuda.targets.base import Cells, Floats, Metric, Values, logistic
from mmcuda.targets.classes import Classes, check_number, read_classes


@dataclass(frozen=True)
class Ordinal(Classes):
    """One of C ordered classes: C - 1 logits, of being above the first, the second, ... class.

    Each is a logistic regression of its own on the same features (Frank and Hall, ECML 2001; as a network's head: Niu
    et al., CVPR 2016). Where they contradict each other, a higher class is not taken as more probable than a lower one.
    """

    kind = "ordinal"
    metrics = {"kappa": Metric("quadratic-weighted kappa"), "mae": Metric("MAE in classes")}  # noqa: RUF012

    @property
    def logits(self) -> int:
        """One for each class but the lowest."""
        return len(self.classes) - 1

    @classmethod
    def read(cls, cells: Cells, order: tuple[str, ...] = ()) -> tuple[Self, Values]:
        """Read numbers, in their order, or words in the order that is given."""
        if order:
            classes, values = read_classes(cells, order)
            return cls(classes), values
        numbers = cells.numbers()
        grades = np.unique(numbers[np.isfinite(numbers)])
        check_number(cells, [f"{grade:g}" for grade in grades])
        values = np.where(np.isfinite(numbers), np.searchsorted(grades, numbers), np.nan)
        return cls(tuple(f"{grade:g}" for grade in grades)), values.astype(np.float32)

    def loss(self, logits: Tensor, values: Tensor, class_weights: Tensor | None, focal_gamma: float) -> Tensor:
        """Return the mean of the C - 1 binary cross-entropies, times the weight of the class."""
        above = values[:, None] > torch.arange(self.logits, device=values.device)
        towards = torch.where(above, logits, -logits)
        focus = torch.exp(focal_gamma * F.logsigmoid(-towards)) if focal_gamma else 1.0
        weight = 1.0 if class_weights is None else class_weights[values.long()]
        return (-F.logsigmoid(towards) * focus).mean(dim=1) * weight

    def activate(self, logits: Floats) -> Floats:
        """Return the probabilities of the classes."""
        above = np.minimum.accumulate(expit(logits), axis=-1)
        edges = np.concatenate([np.ones_like(above[..., :1]), above, np.zeros_like(above[..., :1])], axis=-1)
        return np.asarray(-np.diff(edges, axis=-1))

    def activate_tensor(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        above = [torch.sigmoid(logits[..., :1])]
        for place in range(1, self.logits):
            above.append(torch.minimum(above[-1], torch.sigmoid(logits[..., place : place + 1])))
        edges = torch.cat([torch.ones_like(above[0]), *above, torch.zeros_like(above[0])], dim=-1)
        return edges[..., :-1] - edges[..., 1:]

    def fit(self, features: Floats, values: Values, balanced: bool) -> tuple[Floats, Floats]:
        """Fit a logistic regression of every "above"; where no image parts them, the probability is that of chance."""
        weight, bias = np.zeros((self.logits, features.shape[1])), np.zeros(self.logits)
        for place in range(self.logits):
            above = (values > place).astype(np.float32)
            if 0 < above.sum() < len(above):
                model = logistic(features, above, balanced)
                weight[place], bias[place] = model.coef_[0], model.intercept_[0]
            else:
                bias[place] = logit((above.sum() + 0.5) / (len(above) + 1))
        return weight, bias

    def scores(self, predictions: Floats, values: Values, weights: Floats) -> dict[str, Floats]:
        """Return Cohen's kappa with quadratic weights, and the mean distance in classes."""
        decided = self.decide(predictions)
        return {
            "kappa": weighted_kappa(decided, values, weights, len(self.classes)),
            "mae": weighted_mae(decided, values, weights),
        }

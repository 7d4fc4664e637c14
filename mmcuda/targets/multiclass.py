"""Targets of several classes without an order, such as a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor

from mmcuda.evaluate.metrics import weighted_accuracy, weighted_macro_auroc
from mmcuda.targets.base import Cells, Floats, Metric, Values, logistic
from mmcuda.targets.classes import Classes, read_classes

NEVER = -30.0  # logit of a class that no training image has


@dataclass(frozen=True)
class Multiclass(Classes):
    """One of several classes: a logit each, whose softmax are the probabilities."""

    kind = "multiclass"
    metrics = {"macro_auroc": Metric("macro AUROC"), "accuracy": Metric("accuracy")}  # noqa: RUF012

    @property
    def logits(self) -> int:
        """One for each class."""
        return len(self.classes)

    @classmethod
    def read(cls, cells: Cells, order: tuple[str, ...] = ()) -> tuple[Self, Values]:
        """Read words or numbers, each different one a class."""
        classes, values = read_classes(cells, order)
        return cls(classes), values

    def loss(self, logits: Tensor, values: Tensor, class_weights: Tensor | None, focal_gamma: float) -> Tensor:
        """Return the cross-entropy: weight of the class * (1 - p)^gamma * -log p."""
        log_p = F.log_softmax(logits, dim=1).gather(1, values.long()[:, None])[:, 0]
        focus = (-torch.expm1(log_p)).clamp(min=1e-12) ** focal_gamma if focal_gamma else 1.0
        weight = 1.0 if class_weights is None else class_weights[values.long()]
        return -log_p * focus * weight

    def activate(self, logits: Floats) -> Floats:
        """Return the probabilities of the classes."""
        return np.asarray(softmax(logits, axis=-1))

    def activate_tensor(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        return torch.softmax(logits, dim=-1)

    def fit(self, features: Floats, values: Values, balanced: bool) -> tuple[Floats, Floats]:
        """Fit a multinomial logistic regression; a class that no image has is never predicted."""
        model = logistic(features, values, balanced)
        seen = model.classes_.astype(int)
        weight, bias = np.zeros((self.logits, features.shape[1])), np.full(self.logits, NEVER)
        if len(seen) == 2:  # one row, of the second class
            weight[seen[1]], bias[seen] = model.coef_[0], [0.0, model.intercept_[0]]
        else:
            weight[seen], bias[seen] = model.coef_, model.intercept_
        return weight, bias

    def scores(self, predictions: Floats, values: Values, weights: Floats) -> dict[str, Floats]:
        """Return the mean over classes of the AUROC of one against the others, and the accuracy."""
        return {
            "macro_auroc": weighted_macro_auroc(predictions, values, weights),
            "accuracy": weighted_accuracy(self.decide(predictions), values, weights),
        }

    def of_group(self, values: pd.api.typing.DataFrameGroupBy) -> pd.DataFrame:
        """Return the class that all its labelled images share; no label where they differ."""
        highest = values.max()
        return highest.where(highest == values.min())

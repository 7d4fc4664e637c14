"""Targets of two classes, such as fluid or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit, logit
from torch import Tensor

from mmcuda.evaluate.metrics import weighted_auroc
from mmcuda.targets.base import Cells, Floats, Metric, Target, Values, logistic

WORDS = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


@dataclass(frozen=True)
class Binary(Target):
    """Positive or negative: one logit, whose sigmoid is the probability of a positive."""

    kind = "binary"
    metrics = {"auroc": Metric("AUROC")}  # noqa: RUF012
    points = {  # noqa: RUF012
        name: Metric(name)
        for name in (
            *("auprc", "threshold", "sensitivity", "specificity", "precision", "f1", "accuracy", "balanced_accuracy"),
            *("exact_match", "ece", "brier"),
        )
    }
    has_thresholds = True

    classes: tuple[str, ...] = ("negative", "positive")
    logits = 1

    def columns(self, name: str) -> list[str]:
        """Return the name of its probability: the target's own."""
        return [name]

    @classmethod
    def read(cls, cells: Cells, order: tuple[str, ...] = ()) -> tuple[Self, Values]:
        """Read 0 and 1, true and false, yes and no."""
        texts = cells.texts()
        values = texts.str.casefold().map(WORDS)
        wanted = "expected 0 or 1, true or false, yes or no, or empty"
        cells.reject((values.isna() & (texts != "")).to_numpy(), lambda cell: f'{wanted}, got "{cell}"')
        return cls(), np.asarray(values, dtype=np.float32)

    def loss(self, logits: Tensor, values: Tensor, class_weights: Tensor | None, focal_gamma: float) -> Tensor:
        """Return the binary cross-entropy, by the focal loss as of Lin et al., ICCV 2017, equation 4.

        One logit z is as good as two: softmax over (0, z) is sigmoid(z). With p the probability of the right class,

            weight of the class * (1 - p)^gamma * -log p
        """
        positive = values == 1
        towards = torch.where(positive, logits[:, 0], -logits[:, 0])  # the logit of the right class
        # log(1 - p) = logsigmoid(-towards): finite where 1 - p has already rounded to 0
        focus = torch.exp(focal_gamma * F.logsigmoid(-towards)) if focal_gamma else 1.0
        weight = 1.0 if class_weights is None else class_weights[positive.long()]
        return -F.logsigmoid(towards) * focus * weight

    def activate(self, logits: Floats) -> Floats:
        """Return the probability of a positive."""
        return np.asarray(expit(logits))

    def activate_tensor(self, logits: Tensor) -> Tensor:
        """Return the probability of a positive."""
        return torch.sigmoid(logits)

    def fit(self, features: Floats, values: Values, balanced: bool) -> tuple[Floats, Floats]:
        """Fit a logistic regression."""
        model = logistic(features, values, balanced)
        return model.coef_, model.intercept_

    def shift(self, values: Values, part: Values) -> Floats | float:
        """Return the difference in log odds of a positive; NaN where one side has a single class."""
        whole, rest = (float(np.nanmean(labels.astype(np.float64))) for labels in (values, part))
        return float(logit(whole) - logit(rest)) if 0 < rest < 1 and 0 < whole < 1 else np.nan

    def scores(self, predictions: Floats, values: Values, weights: Floats) -> dict[str, Floats]:
        """Return the AUROC."""
        return {"auroc": weighted_auroc(predictions[:, 0], values, weights)}

    def point_scores(self, predictions: Floats, values: Values, thresholds: Floats) -> dict[str, float]:
        """Return average precision, what decisions at the thresholds are worth, and calibration."""
        from mmcuda.evaluate.calibration import calibration_metrics
        from mmcuda.evaluate.metrics import auprc_of_targets
        from mmcuda.evaluate.threshold import decision_metrics

        auprc = float(auprc_of_targets(predictions, values[:, None])[0])
        decisions = decision_metrics(predictions[:, 0], values, thresholds)
        return decisions | calibration_metrics(predictions[:, 0], values) | {"auprc": auprc}

    def title(self, name: str, value: float) -> str:
        """Return the name of a positive target."""
        return name if value == 1 else ""

    def counts(self, values: Values) -> dict[str, float]:
        """Count positives, negatives, and images without a label."""
        return {
            "positive": int((values == 1).sum()),
            "negative": int((values == 0).sum()),
            "unlabelled": int(np.isnan(values).sum()),
        }

    def lacking(self, values: Values) -> list[str]:
        """Return what labels lack, positives first."""
        return ["label"] if np.isnan(values).all() else super().lacking(values)[::-1]

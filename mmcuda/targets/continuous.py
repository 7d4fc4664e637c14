"""Targets that are numbers, such as a thickness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from torch import Tensor

from mmcuda.evaluate.metrics import weighted_mae, weighted_r2
from mmcuda.targets.base import INVERSE_REGULARISATION, Cells, Floats, Metric, Target, Values


@dataclass(frozen=True)
class Continuous(Target):
    """A number: one logit, which is the number standardised by the training labels."""

    kind = "continuous"
    metrics = {"r2": Metric("R²"), "mae": Metric("MAE", has_unit=True)}  # noqa: RUF012

    mean: float = 0.0  # of the training labels
    scale: float = 1.0  # their standard deviation
    logits = 1

    def columns(self, name: str) -> list[str]:
        """Return the name of its prediction: the target's own."""
        return [name]

    @classmethod
    def read(cls, cells: Cells, order: tuple[str, ...] = ()) -> tuple[Self, Values]:
        """Read numbers."""
        return cls(), cells.numbers().astype(np.float32)

    def fitted(self, values: Values) -> Self:
        """Return the target with mean and deviation of the labels."""
        known = values[np.isfinite(values)].astype(np.float64)
        if len(known) == 0:
            return self
        return replace(self, mean=float(known.mean()), scale=float(known.std()) or 1.0)

    def loss(self, logits: Tensor, values: Tensor, class_weights: Tensor | None, focal_gamma: float) -> Tensor:
        """Return half the squared error, in units of the standard deviation; there are no classes to weigh."""
        return 0.5 * (logits[:, 0] - (values - self.mean) / self.scale) ** 2

    def activate(self, logits: Floats) -> Floats:
        """Return the number in its own unit."""
        return np.asarray(logits * self.scale + self.mean)

    def activate_tensor(self, logits: Tensor) -> Tensor:
        """Return the number in its own unit."""
        return logits * self.scale + self.mean

    def fit(self, features: Floats, values: Values, balanced: bool) -> tuple[Floats, Floats]:
        """Fit a ridge regression of the standardised numbers, as strongly regularised as the logistic regressions."""
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=1 / INVERSE_REGULARISATION).fit(features, (values - self.mean) / self.scale)
        return model.coef_[None], np.array([model.intercept_])

    def scores(self, predictions: Floats, values: Values, weights: Floats) -> dict[str, Floats]:
        """Return the share of variance explained, and the mean absolute error in the target's unit."""
        return {
            "r2": weighted_r2(predictions[:, 0], values, weights),
            "mae": weighted_mae(predictions[:, 0], values, weights),
        }

    def of_group(self, values: pd.api.typing.DataFrameGroupBy) -> pd.DataFrame:
        """Return the mean of its images' labels."""
        return values.mean()

    def title(self, name: str, value: float) -> str:
        """Return name and number."""
        return "" if np.isnan(value) else f"{name} {value:g}"

    def counts(self, values: Values) -> dict[str, float]:
        """Count the labels, and say from where to where they go."""
        known = values[np.isfinite(values)]
        ends = {"lowest": float(known.min()), "highest": float(known.max())} if len(known) else {}
        return {"labelled": len(known), **ends, "unlabelled": int(np.isnan(values).sum())}

    def lacking(self, values: Values) -> list[str]:
        """Return what labels lack: a label, or a second value."""
        if np.isnan(values).all():
            return ["label"]
        return [] if self.can_learn(values) else ["second value"]

    def problem(self, values: Values) -> str | None:
        """Return whether a value is infinite."""
        return "must be finite or NaN, got an infinite value" if np.isinf(values).any() else None

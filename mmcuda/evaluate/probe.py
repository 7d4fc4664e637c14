"""The linear probe: one logistic regression a target on standardised, frozen features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from mmcuda.evaluate.metrics import mean_ignoring_nan

INVERSE_REGULARISATION = 0.01  # C of scikit-learn: strong, since labels are few
FOLDS = 5


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer on raw features. A target with one class in training has NaN weights: its scores are undefined."""

    weight: npt.NDArray[np.float64]  # [T, F]
    bias: npt.NDArray[np.float64]  # [T]

    def probabilities(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the probability of every target, [n, T], for features [n, F]."""
        logits = features @ self.weight.T + self.bias
        return np.asarray(expit(logits))


def fit_probe(
    features: npt.NDArray[np.float32], targets: npt.NDArray[np.float32], balanced: bool = False
) -> LinearProbe:
    """Fit a probe on the labelled cells.

    Args:
        features: [n, F] of the labelled images.
        targets: [n, T] in {0, 1, NaN}, NaN = no label.
        balanced: let both classes of a target weigh alike.
    """
    scaler = StandardScaler().fit(features)
    standardised = scaler.transform(features)
    weight = np.full((targets.shape[1], features.shape[1]), np.nan)
    bias = np.full(targets.shape[1], np.nan)
    for t, column in enumerate(targets.T):
        labelled = np.isfinite(column)
        if len(np.unique(column[labelled])) == 2:
            weights = "balanced" if balanced else None
            model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, class_weight=weights)
            model.fit(standardised[labelled], column[labelled])
            # w.(x - mean) / scale + b = (w / scale).x + (b - (w / scale).mean)
            weight[t] = model.coef_[0] / scaler.scale_
            bias[t] = model.intercept_[0] - weight[t] @ scaler.mean_
    return LinearProbe(weight, bias)


def out_of_fold(
    features: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
    patients: npt.NDArray[np.str_],
    balanced: bool = False,
) -> npt.NDArray[np.float64]:
    """Return the probabilities [n, T] of the labelled images by probes that did not see their patients.

    The patients are divided into ``FOLDS`` folds, or one a patient where they are fewer; each fold is scored by a probe
    of the others. NaN where these have one class, and everywhere with a single patient. The others of a fold rich in
    positives are poor in them, so that its scores would be low: every bias is moved to the share of positives of all.

    Args:
        features: [n, F].
        targets: [n, T] in {0, 1, NaN}.
        patients: [n] the patient of every image.
        balanced: as of ``fit_probe``.
    """
    probabilities = np.full(targets.shape, np.nan)
    folds = min(FOLDS, len(np.unique(patients)))
    if folds > 1:
        parts = GroupKFold(folds, shuffle=True, random_state=0).split(features, groups=patients)
        for rest, fold in parts:
            probe = fit_probe(features[rest], targets[rest], balanced)
            moved = 0 if balanced else _log_odds(targets) - _log_odds(targets[rest])
            probabilities[fold] = replace(probe, bias=probe.bias + moved).probabilities(features[fold])
    return probabilities


def _log_odds(targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the log odds of a positive among the labels of every target, [T]; NaN where they have one class."""
    share = mean_ignoring_nan(targets.astype(np.float64), axis=0)
    return np.asarray(logit(np.where((share > 0) & (share < 1), share, np.nan)))

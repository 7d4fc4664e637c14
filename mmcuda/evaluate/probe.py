"""The linear probe: for every target a linear model of its kind on standardised, frozen features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mmcuda.evaluate.metrics import Floats
from mmcuda.targets import Targets, activate_all, logit_columns, output_names

Truth = npt.NDArray[np.float32]
FOLDS = 5


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer on raw features. A target that training labels do not tell apart has NaN weights."""

    targets: Targets  # T, fitted to the training labels
    weight: Floats  # [logits of all targets, F]
    bias: Floats  # [logits of all targets]

    def predict(self, features: npt.NDArray[np.float32]) -> Floats:
        """Return the predictions of all targets, [n, outputs], for features [n, F]."""
        return activate_all(self.targets, features @ self.weight.T + self.bias)


def fit_probe(features: npt.NDArray[np.float32], truth: Truth, targets: Targets, balanced: bool = False) -> LinearProbe:
    """Fit a probe on the labelled cells.

    Args:
        features: [n, F] of the labelled images.
        truth: [n, T], NaN = no label.
        targets: the T targets.
        balanced: let all classes of a target weigh alike.
    """
    from sklearn.preprocessing import StandardScaler  # a second to import

    scaler = StandardScaler().fit(features)
    standardised = scaler.transform(features)
    fitted = {name: target.fitted(values) for (name, target), values in zip(targets.items(), truth.T, strict=True)}
    columns = logit_columns(fitted)
    size = sum(target.logits for target in fitted.values())
    weight, bias = np.full((size, features.shape[1]), np.nan), np.full(size, np.nan)
    for (name, target), values in zip(fitted.items(), truth.T, strict=True):
        if target.can_learn(values):
            labelled = np.isfinite(values)
            slopes, intercepts = target.fit(standardised[labelled], values[labelled], balanced)
            # w.(x - mean) / scale + b = (w / scale).x + (b - (w / scale).mean)
            weight[columns[name]] = slopes / scaler.scale_
            moved = [row @ scaler.mean_ for row in weight[columns[name]]]
            bias[columns[name]] = intercepts - np.array(moved)
    return LinearProbe(fitted, weight, bias)


def out_of_fold(
    features: npt.NDArray[np.float32],
    truth: Truth,
    patients: npt.NDArray[np.str_],
    targets: Targets,
    balanced: bool = False,
) -> Floats:
    """Return the predictions [n, outputs] of the labelled images by probes that did not see their patients.

    The patients are divided into ``FOLDS`` folds, or one a patient where they are fewer; each fold is scored by a probe
    of the others. NaN where these do not tell a target apart, and everywhere with a single patient. The others of a
    fold rich in positives are poor in them, so that its scores would be low: ``Target.shift`` puts that right.

    Args:
        features: [n, F].
        truth: [n, T], NaN = no label.
        patients: [n] the patient of every image.
        targets: the T targets.
        balanced: as of ``fit_probe``.
    """
    from sklearn.model_selection import GroupKFold

    predictions = np.full((len(truth), len(output_names(targets))), np.nan)
    folds = min(FOLDS, len(np.unique(patients)))
    if folds > 1:
        parts = GroupKFold(folds, shuffle=True, random_state=0).split(features, groups=patients)
        for rest, fold in parts:
            probe = fit_probe(features[rest], truth[rest], targets, balanced)
            if not balanced:
                probe = replace(probe, bias=probe.bias + _shifts(targets, truth, truth[rest]))
            predictions[fold] = probe.predict(features[fold])
    return predictions


def _shifts(targets: Targets, truth: Truth, part: Truth) -> Floats:
    """Return ``Target.shift`` of every logit, NaN where the labels ``part`` do not tell a target apart."""
    columns = zip(targets.values(), truth.T, part.T, strict=True)
    return np.concatenate(
        [
            np.broadcast_to(target.shift(values, rest) if target.can_learn(rest) else np.nan, target.logits)
            for target, values, rest in columns
        ]
    )

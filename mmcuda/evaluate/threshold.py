"""From probabilities to decisions: a threshold chosen on held-out images, and what it is worth on others."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, roc_curve

from mmcuda.evaluate.metrics import Floats
from mmcuda.targets import Targets, output_columns

Labels = npt.NDArray[np.float32]
Rule = Literal["youden", "f1"]


def choose_threshold(probabilities: Floats, labels: Labels, rule: Rule) -> float:
    """Return the probability from which on an image is called positive.

    It lies halfway between the two neighbouring scores that it parts, and is NaN where nothing can be chosen: no
    labels of both classes, a constant score, or no threshold that is better than calling every image negative.

    Args:
        probabilities: [n] of images that neither trained the classifier nor judge it; NaN ones are left out.
        labels: [n] in {0, 1, NaN}.
        rule: what is highest at the threshold: "youden" sensitivity + specificity - 1, "f1" the F1 score.
    """
    used = np.isfinite(probabilities) & np.isfinite(labels)
    scores, truth = probabilities[used], labels[used]
    positives = truth.sum()
    if len(np.unique(truth)) < 2 or len(np.unique(scores)) < 2:
        return np.nan
    false_rate, true_rate, thresholds = roc_curve(truth, scores, drop_intermediate=False)  # thresholds descend from inf
    if rule == "youden":
        gain = true_rate - false_rate
    else:
        found, wrong = true_rate * positives, false_rate * (len(truth) - positives)
        gain = 2 * found / (found + wrong + positives)
    best = int(np.argmax(gain))
    if gain[best] <= 0:
        return np.nan
    below = thresholds[min(best + 1, len(thresholds) - 1)]
    return float((thresholds[best] + below) / 2)


def choose_thresholds(targets: Targets, predictions: Floats, truth: Labels, rule: Rule) -> Floats:
    """Return ``choose_threshold`` of every target, [T], NaN for kinds without; predictions are [n, outputs]."""
    columns = zip(targets.values(), output_columns(targets).values(), truth.T, strict=True)
    return np.array(
        [
            choose_threshold(predictions[:, at.start], labels, rule) if target.has_thresholds else np.nan
            for target, at, labels in columns
        ]
    )


def decision_metrics(probabilities: Floats, labels: Labels, threshold: float | Floats) -> dict[str, float]:
    """Return what the decisions at ``threshold`` are worth; each is NaN where its denominator is 0.

    Args:
        probabilities: [n].
        labels: [n] in {0, 1}.
        threshold: from it on an image is called positive; one for all images or [n]. With NaN nothing is defined.

    Returns:
        accuracy, balanced_accuracy, precision, sensitivity, specificity, f1.
    """
    called = probabilities >= threshold
    decided = len(labels) > 0 and bool(np.isfinite(threshold).all())
    (tn, fp), (fn, tp) = confusion_matrix(labels, called, labels=[0, 1]) if decided else np.zeros((2, 2))
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "accuracy": _ratio(tp + tn, tp + tn + fp + fn),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "precision": _ratio(tp, tp + fp),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else np.nan


def exact_match(probabilities: Floats, targets: Labels, thresholds: Floats) -> float:
    """Return the share of images on which every target is decided rightly.

    Targets without a label are not judged; an image without any label does not count. NaN where no image counts, or
    where a target has labels but no decision.

    Args:
        probabilities: [n, T].
        targets: [n, T] in {0, 1, NaN}.
        thresholds: [T] or [n, T].
    """
    known = np.isfinite(targets)
    decided = np.isfinite(probabilities) & np.isfinite(thresholds)
    counted = known.any(axis=1)
    if not counted.any() or (known & ~decided).any():
        return np.nan
    right = (probabilities >= thresholds) == (targets == 1)
    return float((right | ~known)[counted].all(axis=1).mean())

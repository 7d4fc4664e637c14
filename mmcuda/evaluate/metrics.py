"""AUROC and average precision from scores, under any weights of the images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

Floats = npt.NDArray[np.float64]


def weighted_auroc(scores: Floats, labels: npt.NDArray[np.float32], weights: Floats) -> Floats:
    """Return the AUROC under every weighting of the images; NaN where a weighting leaves a class empty.

    It is the probability that a positive scores above a negative, a tie counting one half:

        sum over positives p of  weight(p) * (weight of the negatives below p + half of those tied with p)
        divided by  weight of the positives * weight of the negatives

    Args:
        scores: [n].
        labels: [n] in {0, 1}.
        weights: [R, n], not negative.

    Returns:
        [R].
    """
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    negative = negative[np.argsort(scores[negative])]
    below, through = (np.searchsorted(scores[negative], scores[positive], side) for side in ("left", "right"))
    of_positives = weights[:, positive]
    cumulated = np.zeros((len(weights), len(negative) + 1))  # [R, k]: the weight of the k lowest negatives
    np.cumsum(weights[:, negative], axis=1, out=cumulated[:, 1:])
    wins = (of_positives * (cumulated[:, below] + cumulated[:, through]) / 2).sum(axis=1)
    pairs = of_positives.sum(axis=1) * cumulated[:, -1]
    return np.asarray(np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))


def auroc_of_targets(probabilities: Floats, targets: npt.NDArray[np.float32], weights: Floats) -> Floats:
    """Return the AUROC of every target under every weighting, [T, R]; NaN for a target that has none.

    Args:
        probabilities: [n, T], NaN where the classifier is undefined.
        targets: [n, T] in {0, 1, NaN}, NaN = no label; unlabelled images are left out of their target.
        weights: [R, n].
    """
    aurocs = np.full((targets.shape[1], len(weights)), np.nan)
    for t, (scores, labels) in enumerate(zip(probabilities.T, targets.T, strict=True)):
        used = np.isfinite(labels) & np.isfinite(scores)
        if used.any():
            aurocs[t] = weighted_auroc(scores[used], labels[used], weights[:, used])
    return aurocs


def auprc_of_targets(probabilities: Floats, targets: npt.NDArray[np.float32]) -> Floats:
    """Return the average precision of every target, [T]; NaN for a target without both classes or without scores."""
    auprcs = np.full(targets.shape[1], np.nan)
    for t, (scores, labels) in enumerate(zip(probabilities.T, targets.T, strict=True)):
        used = np.isfinite(labels) & np.isfinite(scores)
        if len(np.unique(labels[used])) == 2:
            auprcs[t] = average_precision_score(labels[used], scores[used])
    return auprcs


def mean_ignoring_nan(values: Floats, axis: int) -> Floats:
    """Return the mean along ``axis`` of the entries that are not NaN, and NaN where there are none."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))


def single_class_targets(targets: npt.NDArray[np.float32], names: list[str]) -> list[str]:
    """Return the names of the targets [n, T] that lack a class, so that no metric is defined for them."""
    return [
        name for name, column in zip(names, targets.T, strict=True) if len(np.unique(column[np.isfinite(column)])) < 2
    ]

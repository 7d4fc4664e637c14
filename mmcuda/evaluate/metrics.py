"""Metrics under any weights of the images: [R, n] weightings, such as those of a bootstrap, give [R] values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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


def weighted_macro_auroc(probabilities: Floats, labels: npt.NDArray[np.float32], weights: Floats) -> Floats:
    """Return the mean over classes of the AUROC of one class against all others, [R].

    It is over the classes among ``labels``; NaN where a weighting leaves one of them empty, or there is only one.

    Args:
        probabilities: [n, C].
        labels: [n] in 0..C-1.
        weights: [R, n].
    """
    present = np.unique(labels).astype(int)
    if len(present) < 2:
        return np.full(len(weights), np.nan)
    of_classes = [weighted_auroc(probabilities[:, k], (labels == k).astype(np.float32), weights) for k in present]
    return np.asarray(np.mean(of_classes, axis=0))


def weighted_accuracy(decided: Floats, labels: npt.NDArray[np.float32], weights: Floats) -> Floats:
    """Return the share of images [n] whose class was decided rightly, [R]; NaN without any weight."""
    return _weighted_mean(decided == labels, weights)


def weighted_mae(predicted: Floats, values: npt.NDArray[np.float32], weights: Floats) -> Floats:
    """Return the mean distance of prediction [n] and value [n], [R]; NaN without any weight."""
    return _weighted_mean(abs(predicted - values), weights)


def weighted_r2(predicted: Floats, values: npt.NDArray[np.float32], weights: Floats) -> Floats:
    """Return the share of the variance of ``values`` [n] that predictions [n] explain, [R]; NaN without variance."""
    centred = values - values.astype(np.float64).mean()  # the square of a mean would cancel most digits
    variance = _weighted_mean(centred**2, weights) - _weighted_mean(centred, weights) ** 2
    unexplained = _weighted_mean((predicted - values) ** 2, weights)
    defined = variance > 1e-12 * max(float((centred**2).mean()), np.finfo(np.float64).tiny)
    return np.asarray(1 - np.divide(unexplained, variance, out=np.full(len(weights), np.nan), where=defined))


def weighted_kappa(decided: Floats, labels: npt.NDArray[np.float32], weights: Floats, classes: int) -> Floats:
    """Return Cohen's kappa with quadratic weights, [R]; NaN where all is of one class.

    Args:
        decided: [n] in 0..classes-1.
        labels: [n] likewise.
        weights: [R, n].
        classes: their number.
    """
    rank = np.arange(classes)
    cost = (rank[:, None] - rank) ** 2
    in_class, called = (np.equal.outer(side, rank).astype(np.float64) for side in (labels, decided))  # [n, C]
    expected = np.einsum("rc,cd,rd->r", weights @ in_class, cost, weights @ called)
    observed = (weights @ (labels.astype(np.float64) - decided) ** 2) * weights.sum(axis=1)
    return np.asarray(1 - np.divide(observed, expected, out=np.full(len(weights), np.nan), where=expected > 0))


def _weighted_mean(values: npt.NDArray[np.generic], weights: Floats) -> Floats:
    total = weights.sum(axis=1)
    sums = weights @ values.astype(np.float64)
    return np.asarray(np.divide(sums, total, out=np.full(len(weights), np.nan), where=total > 0))


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
    from sklearn.metrics import average_precision_score  # a second to import

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

"""The bootstrap over patients: intervals of a score, and paired differences between two sets of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmcuda.evaluate.metrics import Floats, auroc_of_targets

SEED = 0  # everything is scored on the same resamples, so that scores can be compared in pairs


@dataclass(frozen=True)
class Difference:
    """How much higher the first of two scores is, over the same resamples. NaN where a score is undefined."""

    value: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided, of no difference; never below 2 / (resamples + 1)
    resamples: int  # in which both scores are defined: the ground of interval and p


def bootstrap_weights(patients: npt.NDArray[np.str_], resamples: int, seed: int = SEED) -> Floats:
    """Return how often each image counts in each resample of the patients, [1 + resamples, n].

    Row 0 is all ones: the sample itself. In the other rows patients are drawn with replacement, each with all its
    images, because the images of one patient are not independent.
    """
    names, patient_of_image = np.unique(patients, return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    sample = np.ones((1, len(patients)))
    return np.concatenate([sample, counts[:, patient_of_image].astype(np.float64)])


def interval(resampled: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of a score's resamples [R] that are defined; NaN where none is."""
    known = resampled[np.isfinite(resampled)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def mean_of_draws(scores: Floats, times: Floats | float = 1.0) -> Floats:
    """Return [T, 1 + R], the mean of [draws, T, 1 + R] over the draws in which the target could be trained.

    The sample (column 0) and its resamples average the same draws; NaN in one of these is NaN in the mean.

    Args:
        scores: [draws, T, 1 + R].
        times: how often each draw counts, [draws, 1, 1 + R] where they do not all count once.
    """
    used = np.isfinite(scores[:, :, :1])
    count = (used * times).sum(axis=0)
    total = (np.where(used, scores, 0.0) * times).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def difference(first: Floats, second: Floats) -> Difference:
    """Compare two scores of the same patients under the same weights of ``bootstrap_weights``.

    The p value inverts the percentile interval: it is twice the smaller share of resamples on one side of no
    difference, the sample counted among them (Davison and Hinkley 1997, 4.2).

    Args:
        first: [1 + R], the score of the sample and of its resamples.
        second: [1 + R].
    """
    if not np.isfinite(first[0] - second[0]):
        return Difference(np.nan, np.nan, np.nan, np.nan, 0)
    resampled = first[1:] - second[1:]
    resampled = resampled[np.isfinite(resampled)]
    count = len(resampled)
    beyond = min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * (1 + int(beyond)) / (1 + count)) if count else np.nan
    return Difference(float(first[0] - second[0]), *interval(resampled), p, count)


def with_mean(scores: Floats) -> Floats:
    """Append to the scores of targets, [T, 1 + R], their mean over the targets that have one.

    It is NaN in a resample in which one of these has none: another set of targets would not be comparable.
    """
    defined = np.isfinite(scores[:, 0])
    mean = scores[defined].mean(axis=0) if defined.any() else np.full(scores.shape[1], np.nan)
    return np.concatenate([scores, mean[None]])


def differences(first: Floats, second: Floats) -> list[Difference]:
    """Return the ``difference`` of every target's scores, [T, 1 + R] each, then of the mean over those in both."""
    both = np.isfinite(first[:, :1] + second[:, :1])
    one, two = (with_mean(np.where(both, scores, np.nan)) for scores in (first, second))
    return [difference(*pair) for pair in zip(one, two, strict=True)]


def paired_difference(
    first: Sequence[Floats],
    second: Sequence[Floats],
    names: Sequence[str],
    targets: npt.NDArray[np.float32],
    weights: Floats,
) -> dict[str, Difference]:
    """Return the difference in AUROC for every target and, as "mean", for their mean.

    Both sides are scored on the same images: those with a label. The mean is over the targets that have an AUROC on
    both sides. The interval speaks of other patients, not of other training seeds.

    Args:
        first: per draw or seed, [n, T] probabilities, NaN where a target could not be trained.
        second: likewise; may have another number of draws.
        names: the T targets.
        targets: [n, T] in {0, 1, NaN}.
        weights: [1 + R, n] of ``bootstrap_weights`` of the images' patients.
    """
    one, two = (
        mean_of_draws(np.stack([auroc_of_targets(s, targets, weights) for s in side])) for side in (first, second)
    )
    return dict(zip([*names, "mean"], differences(one, two), strict=True))

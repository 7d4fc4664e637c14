"""Rows of metrics: one a target, and one for their mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmcuda.evaluate.bootstrap import interval, mean_of_draws, with_mean
from mmcuda.evaluate.calibration import calibration_metrics
from mmcuda.evaluate.metrics import Floats, auprc_of_targets, auroc_of_targets, mean_ignoring_nan
from mmcuda.evaluate.threshold import decision_metrics, exact_match

Row = dict[str, str | float | int | None]
Key = Mapping[str, str | float | int]
Targets = npt.NDArray[np.float32]
METRICS = (  # of every row, beside the AUROC with its interval
    *("auprc", "threshold", "sensitivity", "specificity", "precision", "f1", "accuracy", "balanced_accuracy"),
    *("exact_match", "ece", "brier"),
)
USUAL_SHARE = 0.9  # of the resamples has both classes; where it is less, the note says so


@dataclass(frozen=True)
class Judged:
    """One classifier's probabilities of what it is judged by: images, or groups of them."""

    probabilities: Floats  # [n, T], NaN where a target could not be trained
    thresholds: Floats  # [T] or [n, T], NaN where none could be chosen


def score_rows(
    key: Key,
    names: Sequence[str],
    classifiers: Sequence[Judged],
    targets: Targets,
    labelled: Sequence[Targets],
    weights: Floats,
) -> list[Row]:
    """Return a row for every target and one for their mean; numbers are means over the classifiers that have them.

    The mean is over the targets with an AUROC: those with both classes among ``targets`` and in the training labels
    of some classifier. What is undefined is None, and ``note`` says why.

    Args:
        key: what the rows share, such as pretraining, label_fraction and seed.
        names: the T targets.
        classifiers: one a draw of the labelled patients.
        targets: [n, T] in {0, 1, NaN}.
        labelled: [l, T] the labels that classifiers were trained on; only counted.
        weights: [1 + R, n] of ``bootstrap_weights``.
    """
    draws = np.stack([auroc_of_targets(c.probabilities, targets, weights) for c in classifiers])
    aurocs = with_mean(mean_of_draws(draws))
    found = [_target_metrics(c, targets) for c in classifiers]
    metrics = pd.DataFrame(mean_ignoring_nan(np.stack(found), axis=0), columns=found[0].columns)
    rows = []
    for t, name in enumerate(names):
        counts = _counts(targets[:, [t]], [labels[:, [t]] for labels in labelled])
        rows.append(_row(key, name, aurocs[t], metrics.loc[t], counts, _reasons(targets[:, t], classifiers, t)))

    scored = np.isfinite(aurocs[:-1, 0])
    averages = metrics[scored].drop(columns="threshold").mean(skipna=False)
    matches = [
        exact_match(c.probabilities[:, scored], targets[:, scored], c.thresholds[..., scored]) for c in classifiers
    ]
    averages["exact_match"] = float(mean_ignoring_nan(np.array(matches), axis=0))
    counts = _counts(targets, labelled)
    undecided, never_positive = (scored & metrics[metric].isna().to_numpy() for metric in ("f1", "precision"))
    lacking = {
        "without": ~scored,
        "no decisions on": undecided,
        "nothing called positive of": never_positive & ~undecided,
    }
    reasons = [f"{what} {', '.join(np.array(names)[which])}" for what, which in lacking.items() if which.any()]
    return [*rows, _row(key, "mean", aurocs[-1], averages, counts, reasons)]


def _target_metrics(classifier: Judged, targets: Targets) -> pd.DataFrame:
    """Return every metric but the AUROC, a row a target."""
    rows = []
    probabilities, thresholds = classifier.probabilities, np.atleast_2d(classifier.thresholds)
    columns = zip(probabilities.T, targets.T, np.broadcast_to(thresholds, targets.shape).T, strict=True)
    for scores, labels, limits in columns:
        used = np.isfinite(scores) & np.isfinite(labels)
        decisions = decision_metrics(scores[used], labels[used], limits[used])
        rows.append(decisions | calibration_metrics(scores[used], labels[used]))
    return pd.DataFrame(rows).assign(auprc=auprc_of_targets(probabilities, targets), threshold=thresholds.mean(axis=0))


def _counts(targets: Targets, labelled: Sequence[Targets]) -> dict[str, float | int]:
    """Count the images with a label, and those with a positive one."""
    return {
        "n_train": float(np.mean([np.isfinite(labels).any(axis=1).sum() for labels in labelled])),
        "n_test": int(np.isfinite(targets).any(axis=1).sum()),
        "n_positive": int((targets == 1).any(axis=1).sum()),
    }


def _reasons(labels: npt.NDArray[np.float32], classifiers: Sequence[Judged], target: int) -> list[str]:
    """Say why numbers of a target are undefined, or the mean of fewer classifiers than there are."""
    if np.isnan(labels).all():
        return ["no label in test"]
    reasons = [
        f"no {name} in test" for name, label in (("positive", 1), ("negative", 0)) if not (labels == label).any()
    ]
    trained = [c for c in classifiers if np.isfinite(c.probabilities[:, target]).any()]
    decided = [c for c in trained if np.isfinite(c.thresholds[..., target]).all()]
    if not trained:
        return [*reasons, "one class in training"]
    if len(trained) < len(classifiers):
        reasons.append(f"trained in {len(trained)} of {len(classifiers)} draws")
    if len(decided) < len(trained):
        reasons.append(
            "no threshold" + (f" in {len(trained) - len(decided)} of {len(trained)} draws" if decided else "")
        )
    elif not any((c.probabilities >= c.thresholds)[np.isfinite(labels), target].any() for c in decided):
        reasons.append("nothing called positive")
    return reasons


def _row(
    key: Key,
    target: str,
    aurocs: Floats,
    metrics: pd.Series,
    counts: Mapping[str, float | int],
    reasons: Iterable[str],
) -> Row:
    """Return one row; ``aurocs`` [1 + R] holds the AUROC of the sample and of its resamples."""
    low, high = interval(aurocs[1:])
    resamples, known = len(aurocs) - 1, int(np.isfinite(aurocs[1:]).sum())
    if np.isfinite(aurocs[0]) and known < USUAL_SHARE * resamples:  # few patients have one of the classes
        reasons = [*reasons, f"interval from {known} of {resamples} resamples"]
    numbers = {"auroc": aurocs[0], "auroc_low": low, "auroc_high": high, **metrics.reindex(METRICS)}
    return {
        **key,
        "target": target,
        **{name: float(value) if np.isfinite(value) else None for name, value in numbers.items()},  # JSON has no NaN
        **counts,
        "note": "; ".join(reasons) or None,
    }

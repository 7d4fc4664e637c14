"""Rows of metrics: one a target, and one for the mean over the targets of each kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmcuda.evaluate.bootstrap import interval, mean_of_draws, with_mean
from mmcuda.evaluate.metrics import Floats, mean_ignoring_nan
from mmcuda.evaluate.threshold import exact_match
from mmcuda.targets import Target, Targets, by_kind, output_columns

Row = dict[str, str | float | int | None]
Key = Mapping[str, str | float | int]
Truth = npt.NDArray[np.float32]
MEAN = "mean"  # in place of a target: the mean over those of a kind
USUAL_SHARE = 0.9  # of the resamples has all classes; where it is less, the note says so


@dataclass(frozen=True)
class Judged:
    """One classifier's predictions of what it is judged by: images, or groups of them."""

    predictions: Floats  # [n, outputs], NaN where a target could not be trained
    thresholds: Floats  # [T] or [n, T], NaN where none could be chosen

    def of(self, columns: slice, target: int) -> Judged:
        """Return the part of one target: predictions [n, outputs of it], thresholds [1] or [n]."""
        return Judged(self.predictions[:, columns], np.atleast_2d(self.thresholds)[:, target])

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which images have predictions, [n]."""
        return np.asarray(np.isfinite(self.predictions).all(axis=1))


def score_rows(
    key: Key,
    targets: Targets,
    classifiers: Sequence[Judged],
    truth: Truth,
    labelled: Sequence[Truth],
    weights: Floats,
) -> list[Row]:
    """Return kind by kind a row for every target and one for their mean, over the classifiers that have the numbers.

    The mean is over the targets whose primary metric is defined: as a rule, those with all classes among ``truth`` and
    several in the training labels of some classifier. What is undefined is None, and ``note`` says why.

    Args:
        key: what the rows share, such as pretraining, label_fraction and seed.
        targets: the T targets.
        classifiers: one a draw of the labelled patients.
        truth: [n, T], NaN = no label.
        labelled: [l, T] the labels that classifiers were trained on; only counted.
        weights: [1 + R, n] of ``bootstrap_weights``.
    """
    rows, columns, places = [], output_columns(targets), {name: t for t, name in enumerate(targets)}
    for names in by_kind(targets).values():
        found = {}
        for name in names:
            of_target = [classifier.of(columns[name], places[name]) for classifier in classifiers]
            found[name] = _Scored.of(targets[name], of_target, truth[:, places[name]], weights)
            counts = _counts(targets[name], truth[:, [places[name]]], [part[:, [places[name]]] for part in labelled])
            rows.append(_row(key, name, found[name], counts))
        at = [places[name] for name in names]
        together = _mean(found)
        if together.target.has_thresholds:
            matches = [
                exact_match(
                    c.predictions[:, [columns[name].start for name in names]][:, together.used],
                    truth[:, at][:, together.used],
                    c.thresholds[..., at][..., together.used],
                )
                for c in classifiers
            ]
            together.points["exact_match"] = float(mean_ignoring_nan(np.array(matches), axis=0))
        counts = _counts(together.target, truth[:, at], [part[:, at] for part in labelled])
        rows.append(_row(key, MEAN, together, counts))
    return rows


def primary_scores(targets: Targets, predictions: Floats, truth: Truth, weights: Floats) -> Floats:
    """Return the primary metric of every target under every weighting, [T, R]; NaN for a target that has none."""
    parts = zip(targets.values(), output_columns(targets).values(), truth.T, strict=True)
    return np.stack(
        [next(iter(_scores(target, predictions[:, at], values, weights).values())) for target, at, values in parts]
    )


def _scores(target: Target, predictions: Floats, values: Truth, weights: Floats) -> dict[str, Floats]:
    used = np.isfinite(values) & np.isfinite(predictions).all(axis=1)
    if not used.any():
        return {metric: np.full(len(weights), np.nan) for metric in target.metrics}
    return target.scores(predictions[used], values[used], weights[:, used])


@dataclass(frozen=True)
class _Scored:
    """The numbers of one target, or of the mean over targets."""

    target: Target
    scores: dict[str, Floats]  # metric -> [1 + R]
    points: dict[str, float]
    reasons: list[str]
    used: npt.NDArray[np.bool_]  # the targets that enter the mean

    @classmethod
    def of(cls, target: Target, classifiers: Sequence[Judged], values: Truth, weights: Floats) -> _Scored:
        """Score the classifiers of one target: means over those that could be trained."""
        draws = [_scores(target, c.predictions, values, weights) for c in classifiers]
        scores = {m: mean_of_draws(np.stack([draw[m] for draw in draws])[:, None])[0] for m in target.metrics}
        points = [_points(target, c, values) for c in classifiers] if target.points else []
        means: Floats = (
            mean_ignoring_nan(np.array([list(each.values()) for each in points]), axis=0) if points else np.empty(0)
        )
        named = dict(zip(points[0] if points else (), means, strict=True))
        return cls(target, scores, named, _reasons(target, values, classifiers), np.array([True]))

    @property
    def primary(self) -> Floats:
        """The primary metric, [1 + R]."""
        return next(iter(self.scores.values()))


def _points(target: Target, classifier: Judged, values: Truth) -> dict[str, float]:
    used = np.isfinite(values) & classifier.known
    thresholds = np.broadcast_to(classifier.thresholds, values.shape)
    points = target.point_scores(classifier.predictions[used], values[used], thresholds[used])
    return points | {"threshold": float(classifier.thresholds.mean())}


def _mean(found: Mapping[str, _Scored]) -> _Scored:
    """Return the mean over the targets of one kind that have a primary metric."""
    target = next(iter(found.values())).target
    used = np.array([np.isfinite(each.primary[0]) for each in found.values()])
    scores = {}
    for name, metric in target.metrics.items():
        stacked = np.stack([each.scores[name] for each in found.values()])
        scores[name] = with_mean(stacked)[-1] * (np.nan if metric.has_unit else 1)
    points = pd.DataFrame([each.points for each in found.values()], index=list(found))
    averages = {str(name): float(value) for name, value in points[used].mean(skipna=False).items()}
    reasons = []
    if target.has_thresholds:
        averages["threshold"] = np.nan
        undecided, never_positive = (used & points[metric].isna().to_numpy() for metric in ("f1", "precision"))
    else:
        undecided = never_positive = np.zeros(len(used), np.bool_)
    lacking = {
        "without": ~used,
        "no decisions on": undecided,
        "nothing called positive of": never_positive & ~undecided,
    }
    reasons = [f"{what} {', '.join(np.array(list(found))[which])}" for what, which in lacking.items() if which.any()]
    return _Scored(target, scores, averages, reasons, used)


def _counts(target: Target, truth: Truth, labelled: Sequence[Truth]) -> dict[str, float | int]:
    """Count the images with a label, and of binary targets those with a positive one."""
    counts: dict[str, float | int] = {
        "n_train": float(np.mean([np.isfinite(labels).any(axis=1).sum() for labels in labelled])),
        "n_test": int(np.isfinite(truth).any(axis=1).sum()),
    }
    return counts | ({"n_positive": int((truth == 1).any(axis=1).sum())} if target.has_thresholds else {})


def _reasons(target: Target, values: Truth, classifiers: Sequence[Judged]) -> list[str]:
    """Say why numbers of a target are undefined, or the mean of fewer classifiers than there are."""
    reasons = [f"no {what} in test" for what in target.lacking(values)]
    if reasons == ["no label in test"]:
        return reasons
    trained = [c for c in classifiers if c.known.any()]
    if not trained:
        return [*reasons, f"one {'class' if target.classes else 'value'} in training"]
    if len(trained) < len(classifiers):
        reasons.append(f"trained in {len(trained)} of {len(classifiers)} draws")
    if not target.has_thresholds:
        return reasons
    decided = [c for c in trained if np.isfinite(c.thresholds).all()]
    if len(decided) < len(trained):
        reasons.append(
            "no threshold" + (f" in {len(trained) - len(decided)} of {len(trained)} draws" if decided else "")
        )
    elif not any((c.predictions[:, 0] >= c.thresholds)[np.isfinite(values)].any() for c in decided):
        reasons.append("nothing called positive")
    return reasons


def _row(key: Key, name: str, scored: _Scored, counts: Mapping[str, float | int]) -> Row:
    numbers: dict[str, float] = {}
    for metric, scores in scored.scores.items():
        low, high = interval(scores[1:])
        numbers |= {metric: float(scores[0]), f"{metric}_low": low, f"{metric}_high": high}
    numbers |= {metric: scored.points.get(metric, np.nan) for metric in scored.target.points}
    reasons: Iterable[str] = scored.reasons
    resamples, known = len(scored.primary) - 1, int(np.isfinite(scored.primary[1:]).sum())
    if np.isfinite(scored.primary[0]) and known < USUAL_SHARE * resamples:  # few patients have one of the classes
        reasons = [*reasons, f"interval from {known} of {resamples} resamples"]
    return {
        **key,
        "target": name,
        "kind": scored.target.kind,
        **{metric: value if np.isfinite(value) else None for metric, value in numbers.items()},  # JSON has no NaN
        **counts,
        "note": "; ".join(reasons) or None,
    }

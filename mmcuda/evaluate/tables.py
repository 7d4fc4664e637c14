"""The tables of a run: metrics by image, by bag and patient, and by subgroup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices
from mmcuda.evaluate.levels import Groups, group_labels, group_predictions, levels
from mmcuda.evaluate.metrics import Floats
from mmcuda.evaluate.rows import MEAN, Judged, Key, Row, Truth, score_rows
from mmcuda.evaluate.threshold import Rule, choose_thresholds
from mmcuda.targets import Targets

MISSING = "(missing)"  # the subgroup of the images without a value


@dataclass(frozen=True)
class ClassifierScores:
    """Predictions of one classifier: of the images that judge it, and of those that its thresholds are chosen on."""

    labelled: Indices  # [l] images whose labels it saw
    test: Floats  # [n_test, outputs] of the test images; a target that could not be trained is NaN
    held_out: Indices  # [h] images that choose the thresholds: the validation split, or ``labelled`` out of fold
    held_out_predictions: Floats  # [h, outputs] by classifiers that did not see their patients


@dataclass(frozen=True)
class Tables:
    """Rows of metrics by image, by bag and patient (levels), and by subgroup; a file each in a run folder."""

    metrics: list[Row] = field(default_factory=list)
    levels: list[Row] = field(default_factory=list)
    subgroups: list[Row] = field(default_factory=list)

    def extend(self, other: Tables) -> None:
        """Append the rows of ``other``."""
        for rows, more in zip(vars(self).values(), vars(other).values(), strict=True):
            rows.extend(more)


def score_tables(
    key: Key, cohort: Cohort, classifiers: Sequence[ClassifierScores], weights: Floats, rule: Rule
) -> Tables:
    """Judge classifiers of the cohort's targets on its test images.

    Args:
        key: what the rows share, such as pretraining, label_fraction and seed.
        cohort: targets, patients, bags and subgroups; only its test images are scored.
        classifiers: one a draw of the labelled patients; numbers are means over them.
        weights: [1 + R, n_test] of ``bootstrap_weights``.
        rule: how a threshold is chosen. Bags and patients have their own; a subgroup has that of all images.
    """
    targets, truth = cohort.kinds, cohort.target_matrix
    tested, judged = truth[cohort.test], _judge(classifiers, targets, truth, rule)
    trained = [truth[c.labelled] for c in classifiers]
    tables = Tables(metrics=score_rows(key, targets, judged, tested, trained, weights))
    for level, groups in levels(cohort).items():
        of_test = groups[cohort.test]
        first = np.unique(of_test, return_index=True)[1]  # a group lies within a patient: its images weigh the same
        grouped = [_grouped(c, targets, truth, cohort.test, groups, rule) for c in classifiers]
        labels = group_labels(targets, tested, of_test)
        trained = [group_labels(targets, truth[c.labelled], groups[c.labelled]) for c in classifiers]
        rows = score_rows({**key, "level": level}, targets, grouped, labels, trained, weights[:, first])
        tables.levels.extend(rows)
    for column, values in cohort.subgroups.items():
        for value in sorted(np.unique(values).tolist(), key=_by_number):
            inside = values == value
            part = inside[cohort.test]
            of_part = [Judged(j.predictions[part], j.thresholds) for j in judged]
            trained = [truth[c.labelled[inside[c.labelled]]] for c in classifiers]
            subkey = {**key, "subgroup": column, "value": value or MISSING}
            rows = score_rows(subkey, targets, of_part, tested[part], trained, weights[:, part])
            # a mean over other targets than the next subgroup's would mislead
            tables.subgroups.extend(row for row in rows if row["target"] != MEAN)
    return tables


def _judge(classifiers: Sequence[ClassifierScores], targets: Targets, truth: Truth, rule: Rule) -> list[Judged]:
    """Return each classifier's predictions of the test images, with thresholds chosen on its held-out images."""
    return [
        Judged(c.test, choose_thresholds(targets, c.held_out_predictions, truth[c.held_out], rule)) for c in classifiers
    ]


def _grouped(
    scores: ClassifierScores, targets: Targets, truth: Truth, test: Indices, groups: Groups, rule: Rule
) -> Judged:
    """Return a classifier's predictions of groups of images, with thresholds chosen on such groups."""

    def pooled(predictions: Floats, rows: Indices) -> Floats:
        return group_predictions(targets, predictions, truth[rows], groups[rows])

    held_out = group_labels(targets, truth[scores.held_out], groups[scores.held_out])
    predicted = pooled(scores.held_out_predictions, scores.held_out)
    return Judged(pooled(scores.test, test), choose_thresholds(targets, predicted, held_out, rule))


def _by_number(value: str) -> tuple[float, str]:
    """Order subgroups by the number that they begin with, then by their letters; without a number they come last."""
    number = re.match(r"-?\d+(\.\d+)?", value)
    return float(number[0]) if number else np.inf, value

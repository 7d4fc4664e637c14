"""Tables of a report at its headline label fraction: decisions, calibration, bags and patients, subgroups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from mmcuda.report.results import Results, Score
from mmcuda.report.wording import decimal, score_text

DECISIONS = {
    **{"threshold": "threshold", "sensitivity": "sensitivity", "specificity": "specificity", "precision": "precision"},
    **{"F1": "f1", "accuracy": "accuracy", "balanced accuracy": "balanced_accuracy"},
}
CALIBRATION = {"ECE": "ece", "Brier score": "brier"}
SUBGROUPS = {"AUROC": "auroc", "sensitivity": "sensitivity", "specificity": "specificity", "ECE": "ece"}


@dataclass(frozen=True)
class MetricTable:
    """Numbers, a group of rows a target."""

    name: str  # id on the page
    rows_are: str  # what a row of a group is, such as "arm"
    heads: tuple[str, ...]
    groups: dict[str, dict[str, list[str]]]  # target -> row -> cells
    notes: list[str]  # why cells are empty


def decision_table(results: Results, metrics: pd.DataFrame, targets: list[str]) -> MetricTable:
    """Return what decisions at the thresholds are worth; ``metrics`` are the rows of metrics.json."""
    groups = _by_arm(results, targets, DECISIONS, spread=False)
    rows = metrics[(metrics["label_fraction"] == results.headline_fraction) & metrics["target"].isin(targets)]
    notes = _notes(rows[rows["target"] != "mean"], "arm")
    return MetricTable("decisions", "arm", tuple(DECISIONS), groups, notes)


def kind_table(results: Results, targets: list[str]) -> MetricTable:
    """Return every metric of the kind of ``results``, at the headline fraction."""
    heads = {metric.label: name for name, metric in results.kind.metrics.items()}
    return MetricTable(f"metrics-{results.kind.kind}", "arm", tuple(heads), _by_arm(results, targets, heads), [])


def exact_matches(results: Results) -> dict[str, str]:
    """Return by arm the share of images whose targets are all decided rightly; none where it is undefined."""
    scores = {name: results.score(name, results.headline_fraction, "mean", "exact_match") for name in results.arm_names}
    return {
        name: score_text(score, results.several_seeds) for name, score in scores.items() if not math.isnan(score.value)
    }


def calibration_table(results: Results, targets: list[str]) -> MetricTable:
    """Return the errors of the probabilities."""
    groups = _by_arm(results, targets, CALIBRATION)
    return MetricTable("calibration-errors", "arm", tuple(CALIBRATION), groups, [])


def level_table(results: Results, levels: pd.DataFrame, targets: list[str]) -> MetricTable | None:
    """Return the primary metric by image, bag and patient; None where an image is all. ``levels``: levels.json."""
    if levels.empty:
        return None
    of_level = {"image": results} | {
        str(level): Results(rows, results.arm_names, kind=results.kind) for level, rows in levels.groupby("level")
    }
    groups = {
        target: {
            name: [
                score_text(r.score(name, results.headline_fraction, target), r.several_seeds) for r in of_level.values()
            ]
            for name in results.arm_names
        }
        for target in targets
    }
    rows = levels[(levels["label_fraction"] == results.headline_fraction) & levels["target"].isin(targets)]
    notes = _notes(rows[rows[results.primary].isna() | (rows["target"] == "mean")], "level")
    return MetricTable("levels", "arm", tuple(f"by {level}" for level in of_level), groups, notes)


def subgroup_tables(results: Results, subgroups: pd.DataFrame, targets: list[str]) -> dict[str, MetricTable]:
    """Return by column how the subject of the report does in each subgroup. ``subgroups``: rows of subgroups.json."""
    if subgroups.empty:
        return {}
    shown = subgroups[
        (subgroups["arm"] == results.subject) & (subgroups["label_fraction"] == results.headline_fraction)
    ]
    tables: dict[str, MetricTable] = {}
    for column, of_column in shown.groupby("subgroup", sort=False):
        groups: dict[str, dict[str, list[str]]] = {target: {} for target in targets}
        for (target, value), rows in of_column.groupby(["target", "value"], sort=False):
            if target in groups:
                scores = Results(rows, [results.subject])
                cells = [
                    scores.score(results.subject, results.headline_fraction, target, m) for m in SUBGROUPS.values()
                ]
                first = rows.iloc[0]
                groups[target][value] = [
                    *(f"{count:,}" for count in (first["n_test"], first["n_positive"])),
                    *(score_text(cell, results.several_seeds) for cell in cells),
                ]
        name, heads = f"subgroup-{len(tables) + 1}", ("images", "positive", *SUBGROUPS)
        notes = _notes(of_column[of_column["target"].isin(targets)], "value")
        tables[str(column)] = MetricTable(name, str(column), heads, groups, notes)
    return tables


def _by_arm(
    results: Results, targets: Iterable[str], metrics: Mapping[str, str], spread: bool = True
) -> dict[str, dict[str, list[str]]]:
    """Return the cells of ``metrics`` (heads of the columns -> keys of the rows), with or without their spread."""

    def cell(score: Score) -> str:
        return score_text(score, results.several_seeds) if spread else decimal(score.value)

    return {
        target: {
            name: [cell(results.score(name, results.headline_fraction, target, metric)) for metric in metrics.values()]
            for name in results.arm_names
        }
        for target in targets
    }


def _notes(rows: pd.DataFrame, column: str) -> list[str]:
    """Return the notes of the rows, each once a target with the values of ``column`` that it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for target, note, value in zip(rows["target"], rows["note"], rows[column], strict=True):
        if note:
            found.setdefault((target, note), []).append(value)
    return [f"{target} ({', '.join(dict.fromkeys(values))}): {note}." for (target, note), values in found.items()]

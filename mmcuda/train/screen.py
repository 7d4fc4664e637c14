"""What a run prints: a few lines, with the label of each in the first column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcuda.evaluate.rows import MEAN, Row
from mmcuda.report.wording import decimal, percent
from mmcuda.targets import KINDS, Target

LABEL = 10  # width of the first column
CELL = 14
SHORT = 8
COLUMNS = {"AUPRC": "auprc", "sens.": "sensitivity", "spec.": "specificity", "F1": "f1", "ECE": "ece"}


def data_lines(summary: Mapping[str, Any], batch_size: int) -> str:
    """Return the lines ``data`` and ``labels`` about a cohort (the content of cohort.json)."""
    sides = " / ".join(f"{name} {side['patients']:,}" for name, side in summary["split"].items())
    clinical: Mapping[str, Mapping[str, Any]] = summary["clinical"]
    lines = [
        f"{'data':<{LABEL}}{summary['title']}   {summary['images']:,} images, {summary['patients']:,} patients   "
        f"{sides} patients, {summary['leak_check'].split(': ', 1)[1]}",
    ]
    if clinical:
        missing = np.mean([label["missing"] for label in clinical.values()])
        positives = ", ".join(f"{name} {label['positives_per_batch']:.0f}" for name, label in clinical.items())
        lines += [
            f"{'labels':<{LABEL}}clinical: {', '.join(clinical)}   {100 * missing:.0f} % missing",
            f"{'':<{LABEL}}positives per batch of {batch_size}: {positives}",
        ]
    else:
        lines.append(f"{'labels':<{LABEL}}clinical: none")
    notes = [f"{'':<{LABEL}}{note}" for note in summary["notes"]]
    return "\n".join([*lines, *notes, *(f"{'warning':<{LABEL}}{warning}" for warning in summary["warnings"])])


def probe_table(rows: Sequence[Row]) -> str:
    """Return for each kind of target the table of its mean primary metric: a row an arm, a column a label fraction.

    ± is the standard deviation over seeds.
    """
    return "\n".join("\n".join(_probe_lines(kind, of_kind)) for kind, of_kind in _by_kind(rows).items())


def _probe_lines(kind: type[Target], rows: Sequence[Row]) -> list[str]:
    scores = _mean_scores(kind, rows)
    arms = list(dict.fromkeys(name for name, _ in scores))
    fractions = list(dict.fromkeys(fraction for _, fraction in scores))
    width = max(LABEL, *(len(name) + 2 for name in arms))
    lines = [f"{'probe':<{width}}mean {kind.metrics[kind.primary()].label} by label fraction"]
    lines.append(" " * width + "".join(f"{percent(fraction):<{CELL}}" for fraction in fractions).rstrip())
    for name in arms:
        cells = "".join(f"{_cell(scores[name, fraction]):<{CELL}}" for fraction in fractions)
        lines.append(f"{name:<{width}}{cells}".rstrip())
    return lines


def metrics_table(rows: Sequence[Row]) -> str:
    """Return all rows of one encoder as a table a kind of target, with 95 % intervals, and why a number is missing."""
    lines = []
    for kind, of_kind in _by_kind(rows).items():
        primary, *others = kind.metrics
        columns = {kind.metrics[name].label: name for name in others} | (COLUMNS if kind.has_thresholds else {})
        width = max(len("target"), *(len(str(row["target"])) for row in of_kind)) + 2
        heads = "".join(f"{head:<{max(SHORT, len(head) + 2)}}" for head in columns)
        label = kind.metrics[primary].label
        lines.append(
            f"{'labels':<{LABEL}}{'target':<{width}}{label:<{max(20, len(label) + 2)}}{heads}{'n_train':>{SHORT}}"
            f"{'n_test':>{SHORT}}"
        )
        for row in of_kind:
            value, low, high = (row[key] for key in (primary, f"{primary}_low", f"{primary}_high"))
            score = "undefined" if value is None else f"{_short(value)} ({_short(low)}-{_short(high)})"
            cells = "".join(f"{_short(row[name]):<{max(SHORT, len(head) + 2)}}" for head, name in columns.items())
            lines.append(
                f"{percent(float(row['label_fraction'] or 0)):<{LABEL}}{row['target']:<{width}}"
                f"{score:<{max(20, len(label) + 2)}}{cells}"
                f"{float(row['n_train'] or 0):>{SHORT}.0f}{row['n_test']:>{SHORT}}"
            )
    for row in rows:
        if row["note"]:
            place = f"{row['target']} at {percent(float(row['label_fraction'] or 0))}"
            lines.append(f"{'note':<{LABEL}}{place}: {row['note']}")
    return "\n".join(lines)


def level_lines(rows: Sequence[Row]) -> list[str]:
    """Return a line a level above the image (bag, patient) and kind of target: its mean at every label fraction."""
    lines = []
    for level in dict.fromkeys(row["level"] for row in rows):
        for kind, of_kind in _by_kind([row for row in rows if row["level"] == level]).items():
            scores, primary = [], kind.primary()
            for fraction in dict.fromkeys(row["label_fraction"] for row in of_kind):
                *targets, mean = (row for row in of_kind if row["label_fraction"] == fraction)
                scored = sum(row[primary] is not None for row in targets)
                of_some = f" ({scored} of {len(targets)} targets)" if scored < len(targets) else ""
                scores.append(f"{_short(mean[primary])} at {percent(float(fraction or 0))}{of_some}")
            lines.append(f"{f'by {level}':<{LABEL + 2}}mean {kind.metrics[primary].label} {', '.join(scores)}")
    return lines


def _by_kind(rows: Sequence[Row]) -> dict[type[Target], list[Row]]:
    kinds = dict.fromkeys(KINDS[str(row["kind"])] for row in rows)
    return {kind: [row for row in rows if row["kind"] == kind.kind] for kind in kinds}


def _mean_scores(kind: type[Target], rows: Sequence[Row]) -> dict[tuple[str, float], list[float]]:
    """Return the defined mean primary metrics over seeds, by arm and label fraction."""
    scores: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        if row["target"] == MEAN:
            values = scores.setdefault((str(row["arm"]), float(row["label_fraction"] or 0)), [])
            if (value := row[kind.primary()]) is not None:
                values.append(float(value))
    return scores


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "undefined"
    spread = f" ± {decimal(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return f"{decimal(float(np.mean(values)))}{spread}"


def _short(value: str | float | int | None) -> str:
    return "-" if value is None else decimal(float(value)) if abs(float(value)) < 10 else f"{float(value):.4g}"

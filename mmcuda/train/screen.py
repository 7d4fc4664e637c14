"""What a run prints: a few lines, with the label of each in the first column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcuda.evaluate.rows import Row
from mmcuda.report.wording import decimal, percent

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
    """Return the table of mean AUROCs, a row an arm, a column a label fraction; ± is the sd over seeds."""
    scores = _mean_scores(rows)
    arms = list(dict.fromkeys(name for name, _ in scores))
    fractions = list(dict.fromkeys(fraction for _, fraction in scores))
    width = max(LABEL, *(len(name) + 2 for name in arms))
    lines = [f"{'probe':<{width}}mean AUROC by label fraction"]
    lines.append(" " * width + "".join(f"{percent(fraction):<{CELL}}" for fraction in fractions).rstrip())
    for name in arms:
        cells = "".join(f"{_cell(scores[name, fraction]):<{CELL}}" for fraction in fractions)
        lines.append(f"{name:<{width}}{cells}".rstrip())
    return "\n".join(lines)


def metrics_table(rows: Sequence[Row]) -> str:
    """Return all rows of one encoder as a table, with the 95 % intervals of the AUROC, and why a number is missing."""
    width = max(len(str(row["target"])) for row in rows) + 2
    heads = "".join(f"{head:<{SHORT}}" for head in COLUMNS)
    lines = [f"{'labels':<{LABEL}}{'target':<{width}}{'AUROC':<20}{heads}{'n_train':>{SHORT}}{'n_test':>{SHORT}}"]
    for row in rows:
        auroc, low, high = (row[key] for key in ("auroc", "auroc_low", "auroc_high"))
        score = "undefined" if auroc is None else f"{_short(auroc)} ({_short(low)}-{_short(high)})"
        cells = "".join(f"{_short(row[metric]):<{SHORT}}" for metric in COLUMNS.values())
        lines.append(
            f"{percent(float(row['label_fraction'] or 0)):<{LABEL}}{row['target']:<{width}}{score:<20}{cells}"
            f"{float(row['n_train'] or 0):>{SHORT}.0f}{row['n_test']:>{SHORT}}"
        )
    for row in rows:
        if row["note"]:
            place = f"{row['target']} at {percent(float(row['label_fraction'] or 0))}"
            lines.append(f"{'note':<{LABEL}}{place}: {row['note']}")
    return "\n".join(lines)


def level_lines(rows: Sequence[Row]) -> list[str]:
    """Return a line a level above the image (bag, patient): the mean AUROC at every label fraction, over how many."""
    lines = []
    for level in dict.fromkeys(row["level"] for row in rows):
        scores = []
        for fraction in dict.fromkeys(row["label_fraction"] for row in rows):
            *targets, mean = (row for row in rows if (row["level"], row["label_fraction"]) == (level, fraction))
            scored = sum(row["auroc"] is not None for row in targets)
            of_some = f" ({scored} of {len(targets)} targets)" if scored < len(targets) else ""
            scores.append(f"{_short(mean['auroc'])} at {percent(float(fraction or 0))}{of_some}")
        lines.append(f"{f'by {level}':<{LABEL + 2}}mean AUROC {', '.join(scores)}")
    return lines


def _mean_scores(rows: Sequence[Row]) -> dict[tuple[str, float], list[float]]:
    """Return the defined mean AUROCs over seeds, by arm and label fraction."""
    scores: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        if row["target"] == "mean":
            values = scores.setdefault((str(row["arm"]), float(row["label_fraction"] or 0)), [])
            if row["auroc"] is not None:
                values.append(float(row["auroc"]))
    return scores


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "undefined"
    spread = f" ± {decimal(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return f"{decimal(float(np.mean(values)))}{spread}"


def _short(value: str | float | int | None) -> str:
    return "-" if value is None else decimal(float(value))

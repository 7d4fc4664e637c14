"""The report of a study: one HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd

from mmcuda.report.figures import STYLE, Picture
from mmcuda.report.figures_data import draw_samples
from mmcuda.report.figures_results import draw_label_efficiency
from mmcuda.report.figures_study import draw_differences
from mmcuda.report.html import page_environment, score_table
from mmcuda.report.results import Results
from mmcuda.report.run import read_cohort, read_environment, read_samples
from mmcuda.report.wording import (
    DASH,
    control_finding,
    decimal,
    headline,
    in_labels,
    interval_meaning,
    needed_text,
    percent,
    signed,
)
from mmcuda.study.arms import parse_arm

MEAN = "mean"


@dataclass(frozen=True)
class Study:
    """What a study found."""

    table: pd.DataFrame  # results.csv: a row for every arm, label fraction and target, over all seeds
    metrics: pd.DataFrame  # a row for every pretraining (that is, arm), label fraction, seed and target
    arms: Mapping[str, str]  # name -> meaning, in the order in which they are shown
    baseline: str | None  # None: there is nothing to compare
    missing: Sequence[str]  # cells that failed, in words

    @property
    def results(self) -> Results:
        """The means over seeds."""
        return Results(self.metrics, list(self.arms), self.baseline)

    def differences(self, target: str = MEAN) -> pd.DataFrame:
        """Return the rows that differ from the baseline by a known amount."""
        rows = self.table[self.table["target"] == target]
        return rows[rows["difference"].notna()]


def difference_text(difference: float, low: float, high: float) -> str:
    """Write a paired difference with its interval: ``+.044 (+.025 to +.063)``."""
    return DASH if math.isnan(difference) else f"{signed(difference)} ({signed(low)} to {signed(high)})"


def study_findings(study: Study, train_patients: int) -> list[str]:
    """Return what a study found, a sentence each: the headline first."""
    results = study.results
    row, sentences = results.headline_comparison(), [headline(results)]
    if row is None:
        return sentences
    sentences.append(in_labels(results, row, train_patients))
    pairs = study.differences()
    found = pairs[(pairs["arm"] == results.subject) & (pairs["label_fraction"] == row.fraction)]
    for pair in found.itertuples():
        text = difference_text(pair.difference, pair.difference_low, pair.difference_high)
        seeds = f"{pair.pairs} seeds" if pair.pairs > 1 else "one seed"
        sentences.append(
            f"The paired difference at {percent(row.fraction)} is {text}, p = {decimal(pair.p)}, over {seeds}."
        )
    control = control_finding(results, row)
    return [*sentences, control] if control else sentences


def write_study_report(study: Study, folder: Path) -> Path:
    """Write plots/*.png and study.html into a study's folder.

    Args:
        study: its results.
        folder: with config.yaml, cohort.json, environment.json and samples.npz.

    Returns:
        The path of study.html: one file that opens offline.

    Raises:
        UserError: if a file is missing or malformed; the message names it.
    """
    cohort, results = read_cohort(folder / "cohort.json"), study.results
    scored = [target.name for target in cohort.targets if target.name not in cohort.single_class_targets]
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        pictures = {picture.name: picture for picture in _draw(study, folder, scored, plots)}
    fractions = results.fractions
    values = {
        "cohort": cohort,
        "environment": read_environment(folder / "environment.json"),
        "run": {"config": (folder / "config.yaml").read_text()},
        "study": study,
        "results": results,
        "pictures": pictures,
        "left_out": [target.name for target in cohort.targets if target.name not in scored],
        "findings": study_findings(study, cohort.train.patients),
        "interval": f"{'±' if results.several_seeds else 'Brackets'}: {interval_meaning(results)}.",
        "differences": _difference_rows(study),
        "needed": {arm: [_needed(results, arm, fraction) for fraction in fractions] for arm in results.pretrainings},
        "auroc": score_table(results, [MEAN, *scored], "auroc"),
        "auprc": score_table(results, [MEAN, *scored], "auprc"),
    }
    path = folder / "study.html"
    path.write_text(page_environment().get_template("study.html.j2").render(values), encoding="utf-8")
    return path


def _draw(study: Study, folder: Path, scored: list[str], plots: Path) -> list[Picture]:
    shown = [
        arm for arm in study.arms if parse_arm(arm).label is None or arm == study.baseline
    ]  # more lines could not be told apart
    curves = Results(study.metrics, shown, study.baseline)
    pictures = [draw_samples(read_samples(folder / "samples.npz"), plots)]
    if curves.pretrainings:
        pictures.append(draw_label_efficiency(curves, scored, plots))
    if len(study.differences()):
        pictures.append(draw_differences(study.differences(), study.baseline or "", plots))
    return pictures


def _difference_rows(study: Study) -> dict[str, list[tuple[str, str]]]:
    """Return arm -> difference and p in words, at every label fraction."""
    rows: dict[str, list[tuple[str, str]]] = {}
    found = {(row.arm, row.label_fraction): row for row in study.differences().itertuples()}
    for arm in dict.fromkeys(arm for arm, _ in found):
        cells = [found.get((arm, fraction)) for fraction in study.results.fractions]
        rows[arm] = [
            (difference_text(row.difference, row.difference_low, row.difference_high), decimal(row.p))
            if row
            else (DASH, DASH)
            for row in cells
        ]
    return rows


def _needed(results: Results, arm: str, fraction: float) -> str:
    comparison = results.compare(arm, fraction)
    return needed_text(comparison, results) if comparison else DASH

"""Fill the two templates: report.html and README.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from mmcuda.report.figures import Picture
from mmcuda.report.figures_results import suffix
from mmcuda.report.metric_tables import (
    MetricTable,
    calibration_table,
    decision_table,
    exact_matches,
    kind_table,
    level_table,
    subgroup_tables,
)
from mmcuda.report.results import Results
from mmcuda.report.run import Run
from mmcuda.report.wording import (
    DASH,
    decimal,
    difference_text,
    duration,
    finding_details,
    headline,
    interval_meaning,
    needed_text,
    percent,
    score_text,
)


@dataclass(frozen=True)
class ScoreCell:
    """One cell of a results table."""

    text: str
    best: bool  # the highest of its target and label fraction


@dataclass(frozen=True)
class ScoreGroup:
    """The rows of one target: arm -> one cell per label fraction."""

    target: str
    rows: dict[str, list[ScoreCell]]


@dataclass(frozen=True)
class TrainingRow:
    """The pretraining of one arm's encoder in numbers."""

    arm: str
    seeds: int
    steps: int
    epochs: int
    loss: str
    images_per_second: float
    data_wait: float  # share of the step
    augmentation: float  # share of the step


def score_table(results: Results, targets: list[str], metric: str) -> list[ScoreGroup]:
    """Return the results table of ``metric``: a group per target, a row per arm, a cell per label fraction."""
    groups = []
    for target in targets:
        rows: dict[str, list[ScoreCell]] = {name: [] for name in results.arm_names}
        for fraction in results.fractions:
            scores = {name: results.score(name, fraction, target, metric) for name in results.arm_names}
            known = [score.value for score in scores.values() if not math.isnan(score.value)]
            for name, score in scores.items():
                best = len(known) > 1 and score.value == max(known)
                rows[name].append(ScoreCell(score_text(score, results.several_seeds), best))
        groups.append(ScoreGroup(target, rows))
    return groups


def training_table(logs: Mapping[tuple[str, int], pd.DataFrame]) -> list[TrainingRow]:
    """Return one row per encoder, named by the arm that probes it.

    Medians over all steps; the loss at the end, averaged over seeds.
    """
    rows = []
    for name in dict.fromkeys(name for name, _ in logs):
        tables = [table for (arm, _), table in logs.items() if arm == name]
        steps = pd.concat(tables)
        last_epoch = [table.loc[table["epoch"] == table["epoch"].max(), "loss"].mean() for table in tables]
        rows.append(
            TrainingRow(
                arm=name,
                seeds=len(tables),
                steps=int(steps["step"].nunique()),
                epochs=int(steps["epoch"].nunique()),
                loss=f"{sum(last_epoch) / len(last_epoch):.3f}",
                images_per_second=float(steps["images_per_second"].median()),
                data_wait=float(steps["data_wait"].mean()),
                augmentation=float(steps["augmentation"].mean()),
            )
        )
    return rows


def page_environment() -> Environment:
    """Return the environment of the templates; page.html.j2 is the frame of every page."""
    environment = Environment(
        loader=PackageLoader("mmcuda.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=percent, duration=duration)
    return environment


def difference_rows(results: Results) -> dict[str, list[tuple[str, str]]]:
    """Return arm -> paired difference from the baseline and its p in words, at every label fraction."""
    found = {(row.arm, row.label_fraction): row for row in results.differences().itertuples()}
    return {
        arm: [
            (difference_text(row.difference, row.difference_low, row.difference_high), decimal(row.p))
            if (row := found.get((arm, fraction)))
            else (DASH, DASH)
            for fraction in results.fractions
        ]
        for arm in results.arm_names
        if any(arm == name for name, _ in found)
    }


def needed_rows(results: Results) -> dict[str, list[str]]:
    """Return arm -> the label fraction at which the baseline is as good, for the arm at every label fraction."""

    def needed(arm: str, fraction: float) -> str:
        comparison = results.compare(arm, fraction)
        return needed_text(comparison, results) if comparison else DASH

    arms = [arm for arm in results.arm_names if arm != results.baseline]
    return {arm: [needed(arm, fraction) for fraction in results.fractions] for arm in arms}


@dataclass(frozen=True)
class KindSection:
    """The results of the targets of one kind that is not binary."""

    kind: str
    label: str  # of the primary metric
    suffix: str  # of the names of its figures
    left_out: list[str]
    scores: list[ScoreGroup]  # of the primary metric
    tables: list[MetricTable]
    caption: str


def kind_sections(run: Run, scored: Mapping[str, list[str]]) -> list[KindSection]:
    """Return a section for every kind of target but binary."""
    sections = []
    for kind, results in run.kinds.items():
        if kind == "binary":
            continue
        shown, levels = ["mean", *scored[kind]], run.levels
        tables = [kind_table(results, shown)]
        if len(levels) and (of_levels := level_table(results, levels[levels["kind"] == kind], shown)):
            tables.append(replace(of_levels, name=f"levels-{kind}"))
        left_out = [t.name for t in run.cohort.targets if t.kind.kind == kind and t.name not in scored[kind]]
        caption = f"With {percent(results.headline_fraction)} of the labelled patients."
        scores = score_table(results, shown, results.primary)
        sections.append(KindSection(kind, results.label, suffix(results), left_out, scores, tables, caption))
    return sections


def render(
    run: Run, scored: Mapping[str, list[str]], pictures: Mapping[str, Picture], missing: Sequence[str] = ()
) -> tuple[str, str]:
    """Return report.html and the model card.

    Args:
        run: the run folder as read.
        scored: names of the targets that enter the mean of each kind.
        pictures: figures by name; a name that is absent is a figure that this run has no data for.
        missing: cells that are not there, in words.
    """
    environment, results = page_environment(), run.results
    named = scored[results.kind.kind]
    of_kind = [target.name for target in run.cohort.targets if target.kind.kind == results.kind.kind]
    binary = results.kind.kind == "binary"
    shown = ["mean", *named] if binary else []
    rows, levels, subgroups = (
        table[table["kind"] == "binary"] if len(table) else table for table in (run.metrics, run.levels, run.subgroups)
    )
    values = {
        "run": run,
        "cohort": run.cohort,
        "environment": run.environment,
        "results": results,
        "pictures": pictures,
        "scored": named,
        "left_out": [name for name in of_kind if name not in named],
        "kinds": kind_sections(run, scored),
        "suffix": suffix(results),
        "missing": missing,
        "headline": headline(results),
        "details": finding_details(results, run.cohort.train.patients),
        "interval": f"{'±' if results.several_seeds else 'Brackets'}: {interval_meaning(results)}.",
        "meanings": {arm.name: arm.meaning for arm in results.arms},
        "trains": [arm.name for arm in results.arms if arm.readout.trains],
        "differences": difference_rows(results),
        "needed": needed_rows(results),
        "main_scores": score_table(results, ["mean", *named], results.primary),
        "auroc": score_table(results, shown, "auroc"),
        "auprc": score_table(results, shown, "auprc"),
        "decisions": decision_table(results, rows, shown),
        "exact_matches": exact_matches(results),
        "calibration": calibration_table(results, shown),
        "levels": level_table(results, levels, shown),
        "subgroups": subgroup_tables(results, subgroups, named if binary else []),
        "training": training_table(run.logs),
    }
    report = environment.get_template("report.html.j2").render(values)
    card = environment.get_template("model_card.md.j2").render(values)
    return report, card

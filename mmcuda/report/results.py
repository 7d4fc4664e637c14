"""The numbers of the report: means over seeds, intervals, and what a gain is worth in labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmcuda.study.arms import SHOWN, baseline_of, parse_arm, subject_of
from mmcuda.targets import Binary, Target

HEADLINE_FRACTION = 0.05


@dataclass(frozen=True)
class Score:
    """One metric with its interval; NaN where undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Score(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class LabelsSaved:
    """The subject at one label fraction, and the fraction at which the baseline is as good."""

    fraction: float
    subject: Score
    baseline: Score
    needed: float | None  # None: the baseline does not get there with all labels measured


class Results:
    """Metrics of the targets of one kind, summarised over seeds.

    Several seeds: the interval is the mean plus and minus one standard deviation over seeds. One seed: it is the 95 %
    bootstrap over test patients that came with the rows, for the metrics that have one.

    Args:
        metrics: a row for every arm, label fraction, seed and target, and for the targets' mean.
        order: names of the arm_names in the order in which they are shown; by default that of their roles.
        baseline: the one that the others are compared with; by default that of their roles.
        table: rows of results.csv, with the paired differences from the baseline.
        kind: of the targets.
    """

    def __init__(
        self,
        metrics: pd.DataFrame,
        order: Sequence[str] = (),
        baseline: str | None = None,
        table: pd.DataFrame | None = None,
        kind: type[Target] = Binary,
    ) -> None:
        self.kind, self.primary = kind, kind.primary()
        self.seeds = sorted(int(seed) for seed in metrics["seed"].unique())
        self.several_seeds = len(self.seeds) > 1
        self.fractions = sorted(float(fraction) for fraction in metrics["label_fraction"].unique())
        present = list(dict.fromkeys(metrics["arm"]))
        arms = {name: parse_arm(name) for name in present}
        labels = [arm.label for arm in arms.values() if arm.label is not None]
        default = sorted(present, key=lambda name: arms[name].place(SHOWN, labels))
        self.arm_names = [name for name in order or default if name in present]
        self.arms = [arms[name] for name in self.arm_names]
        self._baseline, self._table = baseline, table
        self._scores: dict[tuple[str, str, str, float], Score] = {}
        for (target, arm, fraction), rows in metrics.groupby(["target", "arm", "label_fraction"]):
            for metric in rows.columns.intersection([*kind.metrics, *kind.points]):
                self._scores[metric, target, arm, float(fraction)] = self._score(rows, metric)

    def _score(self, rows: pd.DataFrame, metric: str) -> Score:
        value = float(rows[metric].mean())
        if self.several_seeds:
            spread = float(rows[metric].std())
            return Score(value, value - spread, value + spread)
        if f"{metric}_low" in rows:
            return Score(value, float(rows[f"{metric}_low"].mean()), float(rows[f"{metric}_high"].mean()))
        return Score(value, math.nan, math.nan)

    def score(self, arm: str, fraction: float, target: str = "mean", metric: str | None = None) -> Score:
        """Return one score, by default of the primary metric; ``UNDEFINED`` where the run has no such row."""
        return self._scores.get((metric or self.primary, target, arm, fraction), UNDEFINED)

    @property
    def label(self) -> str:
        """The name of the primary metric."""
        return self.kind.metrics[self.primary].label

    @property
    def headline_fraction(self) -> float:
        """The smallest label fraction of at least 5 %, or the largest there is."""
        return min((f for f in self.fractions if f >= HEADLINE_FRACTION), default=self.fractions[-1])

    @property
    def subject(self) -> str:
        """The arm that the report is about."""
        return subject_of(self.arms, self._baseline).name

    @property
    def baseline(self) -> str | None:
        """The arm it is compared with."""
        if self._baseline is None:
            found = baseline_of(self.arms)
            return found.name if found else None
        return self._baseline if self._baseline in self.arm_names and self._baseline != self.subject else None

    def fraction_needed(self, arm: str, level: float, target: str = "mean") -> float | None:
        """Return the smallest label fraction at which ``arm`` reaches the score ``level`` of a target.

        Between the fractions measured the score is taken as linear in log(fraction). None where it never gets there.
        """
        before: tuple[float, float] | None = None
        for fraction in self.fractions:
            value = self.score(arm, fraction, target).value
            if math.isnan(value):
                continue
            if value >= level:
                if before is None:
                    return fraction
                return float(np.exp(np.interp(level, [before[1], value], np.log([before[0], fraction]))))
            before = (fraction, value)
        return None

    def untrained_targets(self, targets: list[str]) -> dict[float, list[str]]:
        """Return, by label fraction, which ``targets`` some arm has no score for: its labels do not differ."""
        missing = {
            fraction: [
                target
                for target in targets
                if any(math.isnan(self.score(name, fraction, target).value) for name in self.arm_names)
            ]
            for fraction in self.fractions
        }
        return {fraction: names for fraction, names in missing.items() if names}

    def compare(self, subject: str, fraction: float) -> LabelsSaved | None:
        """Compare a arm with the baseline at one label fraction; None where one of them has no mean score."""
        score = self.score(subject, fraction)
        baseline = self.score(self.baseline, fraction) if self.baseline else UNDEFINED
        if not self.baseline or math.isnan(score.value) or math.isnan(baseline.value):
            return None
        return LabelsSaved(fraction, score, baseline, self.fraction_needed(self.baseline, score.value))

    def differences(self, target: str = "mean") -> pd.DataFrame:
        """Return the rows of results.csv that differ from the baseline by a known amount; empty without that table."""
        if self._table is None:
            return pd.DataFrame(columns=["arm", "label_fraction", "difference"])
        return self._table[(self._table["target"] == target) & self._table["difference"].notna()]

    def shown_in_curves(self) -> list[str]:
        """Return the arms that get a curve: more could not be told apart, so those of a single label have none."""
        return [arm.name for arm in self.arms if arm.label is None or arm.name in (self.baseline, self.subject)]

    def headline_comparison(self) -> LabelsSaved | None:
        """Return the comparison at ``headline_fraction``."""
        return self.compare(self.subject, self.headline_fraction)

"""From cells to results: means over seeds with intervals, and paired differences from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mmcuda.evaluate.bootstrap import SEED, Difference, differences, interval, mean_of_draws, with_mean
from mmcuda.evaluate.metrics import Floats, mean_ignoring_nan
from mmcuda.evaluate.rows import MEAN, Row
from mmcuda.evaluate.tables import Tables
from mmcuda.report.results import Results
from mmcuda.study.cells import Cell, CellScores
from mmcuda.study.config import StudyConfig
from mmcuda.targets import KINDS, Target

COUNTS = ("n_train", "n_test", "n_positive")
UNPAIRED = Difference(np.nan, np.nan, np.nan, np.nan, 0)

Scores = Mapping[Cell, CellScores]


def all_tables(scores: Scores) -> Tables:
    """Return the rows of every cell."""
    tables = Tables()
    for cell in scores.values():
        tables.extend(cell.tables)
    return tables


def mean_predictions(scores: Scores) -> dict[str, Floats]:
    """Return the mean over a cell's draws of the labelled patients, [n_test, outputs], by arm/fraction/seed."""
    return {
        f"{cell.arm}/{cell.fraction!r}/seed{cell.seed}": mean_ignoring_nan(found.predictions, axis=0)
        for cell, found in scores.items()
    }


def result_table(config: StudyConfig, scores: Scores) -> pd.DataFrame:
    """Return results.csv: over all seeds, a row for every arm, label fraction and target, and for the mean of a kind.

    For each kind of target: its primary metric, with _sd the standard deviation over seeds, _low and _high a 95 %
    interval over resampled test patients and seeds; other metrics are means over seeds. difference is that of the
    primary metric from the baseline's, in pairs: of the same seeds, labelled patients and resamples. baseline_fraction
    is the label fraction at which the baseline's curve reaches the arm's score, empty where it never does.

    Args:
        config: with its arms spelt out.
        scores: of every cell that there is.
    """
    all_rows = all_tables(scores).metrics
    of_targets = next(iter(scores.values())).tables.metrics
    tables = []
    for kind in dict.fromkeys(str(row["kind"]) for row in of_targets):
        names = [str(row["target"]) for row in of_targets if row["kind"] == kind and row["target"] != MEAN]
        of_kind = {cell: found.scores[[found.names.index(name) for name in names]] for cell, found in scores.items()}
        shown = [row for row in all_rows if row["kind"] == kind]
        tables += _rows_of_kind(config, KINDS[kind], [*names, MEAN], pd.DataFrame(shown), of_kind)
    return pd.DataFrame(tables)


def _rows_of_kind(
    config: StudyConfig,
    kind: type[Target],
    targets: Sequence[str],
    metrics: pd.DataFrame,
    scores: Mapping[Cell, Floats],
) -> list[Row]:
    """Return the rows of the targets of one kind and of their mean.

    Args:
        config: with its arms spelt out.
        kind: of the targets.
        targets: their names, then MEAN.
        metrics: rows of metrics.json.
        scores: the primary metric of these targets, [T, 1 + R].
    """
    primary, baseline = kind.primary(), config.baseline or ""
    results = Results(metrics, config.arms, config.baseline, kind=kind)
    numbers = metrics.groupby(["arm", "label_fraction", "target"])
    others = (*list(kind.metrics)[1:], *kind.points, *COUNTS)
    means = numbers[[name for name in others if name in metrics]].mean()
    deviations = numbers[primary].std()
    rows: list[Row] = []
    for arm in results.arm_names:
        for fraction in config.evaluate.label_fractions:
            own, theirs = (_of_seeds(scores, name, fraction) for name in (arm, baseline))
            if not own:
                continue
            values = with_mean(over_seeds(list(own.values())))
            pairs = sorted(own.keys() & theirs.keys()) if arm != baseline else []
            found = [UNPAIRED] * len(targets)
            if pairs:
                found = differences(*(over_seeds([side[seed] for seed in pairs]) for side in (own, theirs)))
            for position, target in enumerate(targets):
                key = (arm, fraction, target)
                low, high = interval(values[position, 1:])
                value, gap = float(values[position, 0]), found[position]
                rows.append(
                    {
                        **dict(zip(means.index.names, key, strict=True)),
                        "kind": kind.kind,
                        "seeds": len(own),
                        primary: value,
                        f"{primary}_sd": float(deviations[key]),
                        f"{primary}_low": low,
                        f"{primary}_high": high,
                        **means.loc[key].to_dict(),
                        "baseline": baseline or None,
                        "pairs": len(pairs),
                        "difference": gap.value,
                        "difference_low": gap.low,
                        "difference_high": gap.high,
                        "p": gap.p,
                        "baseline_fraction": results.fraction_needed(baseline, value, target),
                    }
                )
    return rows


def _of_seeds(scores: Mapping[Cell, Floats], arm: str, fraction: float) -> dict[int, Floats]:
    """Return the primary metric of one arm at one label fraction, seed -> [T, 1 + R]."""
    found = {cell.seed: scores[cell] for cell in scores if (cell.arm, cell.fraction) == (arm, fraction)}
    return dict(sorted(found.items()))


def over_seeds(scores: Sequence[Floats]) -> Floats:
    """Return the mean over seeds, [T, 1 + R]: of the sample, and of its resamples in which seeds are drawn as well.

    A resample so speaks of other patients and of other seeds. A seed without a score of a target does not count there.

    Args:
        scores: of each seed, [T, 1 + R].
    """
    stacked = np.stack(scores)  # [S, T, 1 + R]
    seeds, resamples = len(stacked), stacked.shape[2] - 1
    drawn = np.random.default_rng(SEED).multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)  # [R, S]
    times = np.concatenate([np.ones((1, seeds)), drawn]).T[:, None]  # [S, 1, 1 + R], the same for all arms
    return mean_of_draws(stacked, times)

"""From cells to results: means over seeds with intervals, and paired differences from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mmcuda.evaluate.bootstrap import SEED, Difference, differences, interval, mean_of_draws, with_mean
from mmcuda.evaluate.metrics import Floats, mean_ignoring_nan
from mmcuda.evaluate.rows import METRICS, Row
from mmcuda.evaluate.tables import Tables
from mmcuda.report.results import Results
from mmcuda.study.cells import Cell, CellScores
from mmcuda.study.config import StudyConfig

MEAN = "mean"  # in place of a target: the mean over them
COUNTS = ("n_train", "n_test", "n_positive")
UNPAIRED = Difference(np.nan, np.nan, np.nan, np.nan, 0)

Scores = Mapping[Cell, CellScores]


def all_tables(scores: Scores) -> Tables:
    """Return the rows of every cell."""
    tables = Tables()
    for cell in scores.values():
        tables.extend(cell.tables)
    return tables


def mean_probabilities(scores: Scores) -> dict[str, Floats]:
    """Return the mean over a cell's draws of the labelled patients, [n_test, T], by arm/fraction/seed."""
    return {
        f"{cell.arm}/{cell.fraction!r}/seed{cell.seed}": mean_ignoring_nan(found.probabilities, axis=0)
        for cell, found in scores.items()
    }


def result_table(config: StudyConfig, scores: Scores) -> pd.DataFrame:
    """Return results.csv: over all seeds, a row for every arm, label fraction and target, and for the targets' mean.

    auroc_sd is the standard deviation over seeds, auroc_low and auroc_high a 95 % interval over resampled test
    patients and seeds; other metrics are means over seeds. difference is that of the AUROC from the baseline's, in
    pairs: of the same seeds, labelled patients and resamples. baseline_fraction is the label fraction at which the
    baseline's curve reaches the arm's AUROC, empty where it never does.

    Args:
        config: with its arms spelt out.
        scores: of every cell that there is.
    """
    metrics = pd.DataFrame(all_tables(scores).metrics)
    results = Results(metrics, config.arms, config.baseline)
    numbers = metrics.groupby(["arm", "label_fraction", "target"])
    means = numbers[[*METRICS, *COUNTS]].mean()
    deviations = numbers["auroc"].std()
    targets = [str(row["target"]) for row in next(iter(scores.values())).tables.metrics]  # the last is MEAN
    baseline = config.baseline or ""
    rows: list[Row] = []
    for arm in results.arm_names:
        for fraction in config.evaluate.label_fractions:
            own, others = (_of_seeds(scores, name, fraction) for name in (arm, baseline))
            if not own:
                continue
            aurocs = with_mean(over_seeds(list(own.values())))
            pairs = sorted(own.keys() & others.keys()) if arm != baseline else []
            found = [UNPAIRED] * len(targets)
            if pairs:
                found = differences(*(over_seeds([side[seed] for seed in pairs]) for side in (own, others)))
            for position, target in enumerate(targets):
                key = (arm, fraction, target)
                low, high = interval(aurocs[position, 1:])
                value, gap = float(aurocs[position, 0]), found[position]
                rows.append(
                    {
                        **dict(zip(means.index.names, key, strict=True)),
                        "seeds": len(own),
                        "auroc": value,
                        "auroc_sd": float(deviations[key]),
                        "auroc_low": low,
                        "auroc_high": high,
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
    return pd.DataFrame(rows)


def _of_seeds(scores: Scores, arm: str, fraction: float) -> dict[int, Floats]:
    """Return the AUROCs of one arm at one label fraction, seed -> [T, 1 + R]."""
    found = {cell.seed: scores[cell].aurocs for cell in scores if (cell.arm, cell.fraction) == (arm, fraction)}
    return dict(sorted(found.items()))


def over_seeds(aurocs: Sequence[Floats]) -> Floats:
    """Return the mean over seeds, [T, 1 + R]: of the sample, and of its resamples in which seeds are drawn as well.

    A resample so speaks of other patients and of other seeds. A seed without an AUROC of a target does not count there.

    Args:
        aurocs: of each seed, [T, 1 + R].
    """
    stacked = np.stack(aurocs)  # [S, T, 1 + R]
    seeds, resamples = len(stacked), stacked.shape[2] - 1
    drawn = np.random.default_rng(SEED).multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)  # [R, S]
    times = np.concatenate([np.ones((1, seeds)), drawn]).T[:, None]  # [S, 1, 1 + R], the same for all arms
    return mean_of_draws(stacked, times)

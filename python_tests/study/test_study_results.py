import numpy as np
import pytest

from mmcuda.evaluate.bootstrap import differences
from mmcuda.evaluate.tables import Tables
from mmcuda.study.cells import Cell, CellScores
from mmcuda.study.config import StudyConfig
from mmcuda.study.results import over_seeds, result_table
from mmcuda.targets import Binary
from mmcuda.train.config import EvaluateConfig

RESAMPLES = 400


def aurocs(level, seed, noise=0.01, targets=2):
    """The AUROCs of a seed, [T, 1 + R]: resamples of the same patients move all arms alike."""
    patients = np.random.default_rng(0).normal(0, 0.03, (targets, RESAMPLES))
    own = np.random.default_rng(seed).normal(0, noise, (targets, 1))
    return np.concatenate([np.full((targets, 1), level), level + patients], axis=1) + own


def test_the_sample_is_the_mean_over_seeds_and_resamples_draw_seeds():
    seeds = [aurocs(0.7, seed, noise=0.05) for seed in range(5)]
    combined = over_seeds(seeds)
    np.testing.assert_allclose(combined[:, 0], np.mean([seed[:, 0] for seed in seeds], axis=0))
    quiet = np.stack(seeds).mean(axis=0)
    assert combined[:, 1:].std() > quiet[:, 1:].std()
    np.testing.assert_array_equal(over_seeds(seeds[:1]), seeds[0])


def test_a_seed_without_an_auroc_counts_for_the_other_targets_only():
    seeds = [aurocs(0.6, 0), aurocs(0.8, 1)]
    seeds[1][0] = np.nan
    combined = over_seeds(seeds)
    assert combined[0, 0] == seeds[0][0, 0]
    assert combined[1, 0] == pytest.approx((seeds[0][1, 0] + seeds[1][1, 0]) / 2)
    seeds[0][0] = np.nan
    assert np.isnan(over_seeds(seeds)[0]).all()


def test_pairs_are_surer_than_the_scores_that_they_are_taken_from():
    first, second = [aurocs(0.72, seed) for seed in range(4)], [aurocs(0.70, 10 + seed) for seed in range(4)]
    *targets, mean = differences(over_seeds(first), over_seeds(second))
    assert mean.value == pytest.approx(np.mean([target.value for target in targets]))
    assert mean.value == pytest.approx(0.02, abs=0.02)
    assert mean.high - mean.low < 0.03 < np.ptp(np.percentile(over_seeds(first)[0, 1:], [2.5, 97.5]))
    same = differences(over_seeds(first), over_seeds(first))
    assert [difference.p for difference in same] == [1.0] * 3


def test_the_mean_is_over_the_targets_that_both_have():
    first, second = [aurocs(0.7, 0)], [aurocs(0.6, 1)]
    first[0][1], second[0][1] = 0.9, np.nan
    one, two, mean = differences(over_seeds(first), over_seeds(second))
    assert np.isnan(two.value)
    assert mean == one


def scores(arm, fraction, seed, level):
    values = aurocs(level, seed, noise=0.001)
    cell = Cell(arm, fraction, seed)
    names = {"a": values[0, 0], "b": values[1, 0], "mean": values[:, 0].mean()}
    rows = [
        {
            **{"arm": arm, "label_fraction": fraction, "seed": seed, "target": target, "kind": "binary"},
            **{"auroc": value, "auroc_low": 0.0, "auroc_high": 1.0},
            **dict.fromkeys(Binary.points, 0.5),
            **{"n_train": 10.0, "n_test": 20, "n_positive": 5, "note": None},
        }
        for target, value in names.items()
    ]
    return cell, CellScores(Tables(metrics=rows), ("a", "b"), values, np.zeros((1, 20, 2)))


def test_the_table_says_at_which_fraction_the_baseline_is_as_good():
    levels = {("simclr", 0.1): 0.6, ("simclr", 1.0): 0.8, ("clinical", 0.1): 0.7, ("clinical", 1.0): 0.9}
    found = dict(scores(*key, seed, level) for key, level in levels.items() for seed in (0, 1))
    del found[Cell("simclr", 1.0, 1)]
    config = StudyConfig(
        arms=("simclr", "clinical"), baseline="simclr", seeds=2, evaluate=EvaluateConfig(label_fractions=(0.1, 1.0))
    )
    table = result_table(config, found).set_index(["arm", "label_fraction", "target"])
    row = table.loc[("clinical", 0.1, "mean")]
    assert row["baseline_fraction"] == pytest.approx(np.sqrt(0.1), rel=0.05)  # halfway on the logarithmic scale
    assert row["difference"] == pytest.approx(0.1, abs=0.01)
    assert row["p"] == pytest.approx(2 / (RESAMPLES + 1))
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert np.isnan(table.loc[("clinical", 1.0, "mean"), "baseline_fraction"])
    assert table["pairs"].to_dict() == {
        (arm, fraction, target): {("clinical", 0.1): 2, ("clinical", 1.0): 1}.get((arm, fraction), 0)
        for arm in ("simclr", "clinical")
        for fraction in (0.1, 1.0)
        for target in ("a", "b", "mean")
    }


def test_scores_survive_the_file_and_damage_is_told(tmp_path):
    _, values = scores("simclr", 0.1, 0, 0.7)
    path = tmp_path / "arm" / "cell.npz"
    values.write(path)
    again = CellScores.read(path)
    assert again.tables == values.tables
    np.testing.assert_array_equal(again.scores, values.scores)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cell.npz cannot be read: .* Delete it and continue with --resume"):
        CellScores.read(path)

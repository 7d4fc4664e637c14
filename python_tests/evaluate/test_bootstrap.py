import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmcuda.evaluate.bootstrap import bootstrap_weights, difference, interval, mean_of_draws, paired_difference

NAMES = ["fluid", "foci"]


def patients_of(count, seed=0):
    """Four images a patient on average."""
    return np.array([f"P{p}" for p in np.random.default_rng(seed).integers(0, count // 4, count)])


def predictions(count=240, seed=0, gain=(0.0, 0.0)):
    """Targets with holes and two sets of scores that share most of their errors; the first is better by ``gain``."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, 2)) < 0.4).astype(np.float32)
    shared = targets + rng.normal(0, 1.2, targets.shape)
    first, second = (shared + rng.normal(0, 0.4, targets.shape) + g * targets for g in (gain, (0.0, 0.0)))
    targets[::5, 1] = np.nan
    return first, second, targets


def test_a_resample_draws_patients_with_all_their_images():
    patients = patients_of(100)
    weights = bootstrap_weights(patients, 40, seed=0)
    assert np.array_equal(weights[0], np.ones(100))
    names, first = np.unique(patients, return_index=True)
    for name in names:
        assert (np.ptp(weights[:, patients == name], axis=1) == 0).all()
    assert (weights[1:, first].sum(axis=1) == len(names)).all()


def test_an_interval_leaves_undefined_resamples_out_and_is_nan_without_any():
    values = np.linspace(0, 1, 201)
    assert interval(np.append(values, np.nan)) == pytest.approx((0.025, 0.975))
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_the_mean_over_draws_uses_the_same_draws_for_the_sample_and_its_resamples():
    """A draw that could not train a target is out for all; a resample that lost a class has no value."""
    draws = np.array([[[0.6, 0.5, 0.7]], [[np.nan, np.nan, np.nan]], [[0.8, np.nan, 0.9]]])  # [draws, T, 1 + R]
    np.testing.assert_allclose(mean_of_draws(draws), [[0.7, np.nan, 0.8]])
    assert np.isnan(mean_of_draws(draws[1:2])).all()


def test_a_paired_difference_is_that_of_scikit_learn_on_the_labelled_images():
    first, second, targets = predictions(gain=(0.5, 0.0))
    found = paired_difference([first], [second], NAMES, targets, bootstrap_weights(patients_of(240), 50))
    expected = []
    for t, name in enumerate(NAMES):
        known = np.isfinite(targets[:, t])
        one, two = (roc_auc_score(targets[known, t], side[known, t]) for side in (first, second))
        expected.append(one - two)
        assert found[name].value == pytest.approx(one - two)
    assert found["mean"].value == pytest.approx(np.mean(expected))
    assert list(found) == [*NAMES, "mean"]


def test_both_sides_are_resampled_alike():
    """The errors that both share cancel: the interval is narrower than that of independent resamples."""
    first, second, targets = predictions()
    patients = patients_of(240)
    weights, others = bootstrap_weights(patients, 400, 1), bootstrap_weights(patients, 400, 2)
    paired = paired_difference([first], [second], NAMES, targets, weights)["fluid"]
    one, two = (
        paired_difference([side], [np.zeros_like(side)], NAMES, targets, w)
        for side, w in ((first, weights), (second, others))
    )
    spread = [np.ptp([d["fluid"].low, d["fluid"].high]) for d in (one, two)]
    assert paired.high - paired.low < 0.7 * np.hypot(*spread)


def test_swapped_sides_give_the_negative_with_the_same_p():
    first, second, targets = predictions(gain=(0.3, 0.1))
    weights = bootstrap_weights(patients_of(240), 200)
    there = paired_difference([first], [second], NAMES, targets, weights)
    back = paired_difference([second], [first], NAMES, targets, weights)
    for name in there:
        assert there[name].value == pytest.approx(-back[name].value)
        assert (there[name].low, there[name].high) == pytest.approx((-back[name].high, -back[name].low))
        assert there[name].p == back[name].p


def test_the_same_predictions_differ_by_nothing_with_p_1():
    first, _, targets = predictions()
    weights = bootstrap_weights(patients_of(240), 50)
    found = paired_difference([first], [first], NAMES, targets, weights)["mean"]
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_p_and_interval_agree_and_p_is_never_0():
    sample, resamples = np.array([0.1]), np.random.default_rng(0).normal(0.1, 0.02, 999)
    clear = difference(np.append(sample, resamples), np.zeros(1000))
    assert clear.low > 0
    assert clear.p == 2 / 1000
    unclear = difference(np.append(sample, resamples - 0.07), np.zeros(1000))
    assert unclear.low < 0 < unclear.high
    assert unclear.p > 0.05


def test_without_a_difference_p_is_below_5_percent_about_that_often():
    below = 0
    for seed in range(200):
        first, second, targets = predictions(count=120, seed=seed)
        weights = bootstrap_weights(patients_of(120, seed), 200, seed)
        below += paired_difference([first], [second], NAMES, targets, weights)["fluid"].p < 0.05
    assert 2 <= below <= 20  # 10 expected


def test_draws_and_seeds_are_averaged_before_the_difference():
    first, second, targets = predictions()
    weights = bootstrap_weights(patients_of(240), 20)
    untrained = np.full_like(first, np.nan)
    found = paired_difference([first, second, untrained], [second], NAMES, targets, weights)
    half = paired_difference([first], [second], NAMES, targets, weights)
    assert found["fluid"].value == pytest.approx(half["fluid"].value / 2)


def test_an_undefined_target_has_no_difference_and_is_left_out_of_the_mean():
    first, second, targets = predictions(gain=(0.5, 0.5))
    weights = bootstrap_weights(patients_of(240), 20)
    first[:, 1] = np.nan
    found = paired_difference([first], [second], NAMES, targets, weights)
    assert np.isnan([found["foci"].value, found["foci"].low, found["foci"].high, found["foci"].p]).all()
    assert found["foci"].resamples == 0
    assert found["mean"] == found["fluid"]
    targets[:, 0] = 1
    assert np.isnan(paired_difference([first], [second], NAMES, targets, weights)["mean"].value)

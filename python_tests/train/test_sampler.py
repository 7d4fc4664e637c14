import time

import numpy as np
import pytest

from mmcuda.train.sampler import class_aware_batches, shuffled_batches, steps_per_epoch


def positives(batch, values, tolerance):
    """How many positives each image of the batch has in it."""
    near = abs(values[batch][:, None] - values[batch]) <= tolerance
    return near.sum(axis=1) - 1


@pytest.fixture
def cst():
    """Thickness in micrometres as spread out as in a real cohort, with missing values, and one that nobody shares."""
    values = np.random.default_rng(0).normal(350, 80, 1501).round()
    values[::20] = np.nan
    values[1] = 2000
    return values


def test_an_epoch_visits_no_image_twice_and_drops_the_incomplete_batch():
    batches = shuffled_batches(107, 10, seed=1)
    assert [len(batch) for batch in batches] == [10] * steps_per_epoch(107, 10)
    assert len(np.unique(np.concatenate(batches))) == 100


def near_ones(samples, batch_size, seed):
    return class_aware_batches({"grade": (np.arange(float(samples)), 2.0)}, batch_size, seed)


@pytest.mark.parametrize("draw", [shuffled_batches, near_ones])
def test_order_depends_on_the_seed_alone(draw):
    first, again, other = (np.concatenate(list(draw(50, 10, seed))) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert sorted(np.concatenate(shuffled_batches(3, 10, seed=0))) == [0, 1, 2]
    values = np.array([1.0, 1.0, 2.0])
    assert sorted(np.concatenate(list(class_aware_batches({"k": (values, 0.0)}, 10, seed=0)))) == [0, 1, 2]


@pytest.mark.parametrize("size", [32, 31])
def test_every_image_of_a_class_aware_batch_has_a_positive_if_it_has_one_at_all(cst, size):
    has_any = positives(np.arange(len(cst)), cst, 0) > 0
    by_chance = np.concatenate([positives(b, cst, 0)[has_any[b]] for b in shuffled_batches(len(cst), size, seed=0)])
    assert (by_chance == 0).mean() > 0.8  # without the sampler most are alone
    batches = list(class_aware_batches({"cst": (cst, 0.0)}, size, seed=0))
    assert [len(batch) for batch in batches] == [size] * steps_per_epoch(len(cst), size)
    for batch in batches:
        assert len(np.unique(batch)) == size
        assert positives(batch, cst, 0)[has_any[batch]].min() >= 1


def test_an_epoch_of_class_aware_batches_shows_nearly_every_image(cst):
    shown = np.concatenate(list(class_aware_batches({"cst": (cst, 0.0)}, 32, seed=3)))
    assert len(np.unique(shown)) > 0.9 * len(cst)
    assert np.isnan(cst[shown]).mean() == pytest.approx(0.05, abs=0.01)  # images without a value are shown, too
    assert 1 in shown


def test_with_several_labels_a_third_of_the_batch_has_positives_under_each(cst):
    bcva = np.random.default_rng(1).integers(27, 100, len(cst)).astype(float)
    labels = {"cst": (cst, 0.0), "bcva": (bcva, 0.0)}
    for batch in class_aware_batches(labels, 33, seed=0):
        counts = np.stack([positives(batch, values, 0) for values, _ in labels.values()])
        known = np.isfinite(cst[batch]) & (cst[batch] < 600)
        assert ((counts >= 1).all(axis=0) & known).sum() >= 8
        assert (counts[:, known] >= 1).any(axis=0).mean() > 0.9


def test_a_large_cohort_takes_seconds_an_epoch():
    rng = np.random.default_rng(0)
    cst, eye = rng.integers(151, 723, 78_000) + 0.0, rng.integers(0, 96, 78_000) + 0.0
    started = time.perf_counter()
    assert len(list(class_aware_batches({"cst": (cst, 25.0), "eye": (eye, 0.0)}, 128, seed=0))) == 609
    assert time.perf_counter() - started < 30

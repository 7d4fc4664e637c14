import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmcuda.data import Split, check_no_leak, draw_labelled, split_by_patient

cohorts = st.lists(st.integers(0, 30), min_size=2, max_size=80).map(lambda ids: np.array([f"p{i}" for i in ids]))
seeds = st.integers(0, 2**32 - 1)
unhurried = settings(deadline=None)  # timings say nothing on a busy machine


@unhurried
@given(cohorts, st.floats(0.05, 0.95), seeds)
def test_split_covers_all_images_and_shares_no_patient(patients, test_fraction, seed):
    assume(len(set(patients)) >= 2)
    split = split_by_patient(patients, test_fraction, seed)
    assert split.train.dtype == split.test.dtype == np.int64
    assert sorted([*split.train, *split.test]) == list(range(len(patients)))
    assert not set(patients[split.train]) & set(patients[split.test])
    assert len(split.train) > 0
    assert len(split.test) > 0


def test_split_of_the_readings(lidc):
    split = split_by_patient(lidc.patients, 0.3, seed=0)
    train, test = (len(np.unique(lidc.patients[side])) for side in (split.train, split.test))
    assert (train, test) == (613, 262)
    again, other = split_by_patient(lidc.patients, 0.3, seed=0), split_by_patient(lidc.patients, 0.3, seed=1)
    np.testing.assert_array_equal(split.test, again.test)
    assert not np.array_equal(split.test, other.test)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_a_fraction_out_of_range(lidc, fraction):
    with pytest.raises(ValueError, match="test_fraction must be between 0 and 1"):
        split_by_patient(lidc.patients, fraction, seed=0)


def test_sides_by_name():
    split = Split(np.array([0, 3]), np.array([1]), validation=np.array([4]))
    assert split.side_of_each(6).tolist() == ["train", "test", "", "train", "validation", ""]


def test_one_patient_cannot_be_split():
    with pytest.raises(ValueError, match="a split needs at least 2 patients, got 1"):
        split_by_patient(np.array(["a", "a"]), 0.5, seed=0)


def test_a_planted_leak_is_found(lidc):
    split = split_by_patient(lidc.patients, 0.3, seed=0)
    check_no_leak(lidc.patients, split)
    leaked = split.train[0]
    with pytest.raises(ValueError, match=f"1 on two: {lidc.patients[leaked]}"):
        check_no_leak(lidc.patients, Split(split.train, np.append(split.test, leaked)))


def test_a_leak_names_at_most_five_patients():
    patients = np.array([f"p{i}" for i in range(8)])
    everyone = np.arange(8)
    with pytest.raises(ValueError, match=r"8 on two: p0, p1, p2, p3, p4, \.\.\.$"):
        check_no_leak(patients, Split(everyone, everyone))


@unhurried
@given(cohorts, st.floats(0.001, 1.0), seeds)
def test_draw_takes_whole_patients(patients, fraction, seed):
    train = np.arange(0, len(patients), 2)
    drawn = draw_labelled(patients, train, fraction, seed)
    chosen, available = set(patients[drawn]), set(patients[train])
    assert len(chosen) == max(round(fraction * len(available)), 1)
    assert drawn.tolist() == [index for index in train if patients[index] in chosen]


def test_draws_are_nested_and_depend_on_the_seed(lidc):
    train = split_by_patient(lidc.patients, 0.3, seed=0).train
    few, more = (draw_labelled(lidc.patients, train, fraction, seed=3) for fraction in (0.02, 0.25))
    assert set(few) < set(more) < set(train)
    np.testing.assert_array_equal(few, draw_labelled(lidc.patients, train, 0.02, seed=3))
    assert not np.array_equal(few, draw_labelled(lidc.patients, train, 0.02, seed=4))
    np.testing.assert_array_equal(draw_labelled(lidc.patients, train, 1.0, seed=3), train)


@pytest.mark.parametrize("fraction", [0, -1, 1.01, float("nan")])
def test_draw_refuses_a_fraction_out_of_range(lidc, fraction):
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\]"):
        draw_labelled(lidc.patients, np.arange(10), fraction, seed=0)


def test_draw_refuses_an_empty_training_set(lidc):
    with pytest.raises(ValueError, match="train must hold"):
        draw_labelled(lidc.patients, np.arange(0), 0.5, seed=0)

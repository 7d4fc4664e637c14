from types import SimpleNamespace

import numpy as np

from mmcuda.evaluate.levels import group_labels, group_predictions, levels
from mmcuda.targets import Binary

BINARY = dict.fromkeys("ab", Binary())

PATIENTS = np.array(["B", "A", "A", "A", "B"])
NAN = np.nan


def test_levels_are_bag_and_patient():
    found = levels(SimpleNamespace(patients=PATIENTS, bags=np.array([7, 3, 3, 5, 7])))
    assert list(found) == ["bag", "patient"]
    np.testing.assert_array_equal(found["bag"], [2, 0, 0, 1, 2])
    np.testing.assert_array_equal(found["patient"], [1, 0, 0, 0, 1])


def test_a_level_that_says_nothing_new_is_left_out():
    one_bag_a_patient = SimpleNamespace(patients=PATIENTS, bags=np.array([1, 0, 0, 0, 1]))
    assert list(levels(one_bag_a_patient)) == ["patient"]
    one_image_a_bag = SimpleNamespace(patients=PATIENTS, bags=np.arange(5))
    assert list(levels(one_image_a_bag)) == ["patient"]
    one_image_a_patient = SimpleNamespace(patients=np.array(["A", "B"]), bags=np.arange(2))
    assert levels(one_image_a_patient) == {}


def test_a_group_is_positive_when_one_of_its_images_is():
    targets = np.float32([[0, NAN], [0, 1], [1, 0], [NAN, NAN], [0, NAN]])
    np.testing.assert_array_equal(group_labels(BINARY, targets, np.array([4, 2, 2, 2, 4])), [[1, 1], [0, NAN]])


def test_a_groups_probability_is_the_mean_over_its_labelled_images():
    probabilities = np.array([[0.1, 0.5], [0.3, 0.5], [0.8, 0.7], [0.2, NAN]])
    targets = np.float32([[0, NAN], [NAN, NAN], [1, 1], [0, 0]])
    groups = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(group_predictions(BINARY, probabilities, targets, groups), [[0.45, 0.7], [0.2, NAN]])

import numpy as np

from mmcuda.data import ClinicalLabel
from mmcuda.relations import Equal, Within
from mmcuda.study.clinical_input import clinical_columns

TRAIN = np.arange(4)


def test_few_values_under_equality_are_a_column_each_and_missing_ones_are_in_none():
    grade = ClinicalLabel(np.array([1.0, 3.0, 1.0, np.nan, 3.0, 7.0]), Equal(), "")
    expected = [[1, 0], [0, 1], [1, 0], [0, 0], [0, 1], [0, 0]]  # 7 is unknown to the training images
    np.testing.assert_array_equal(clinical_columns({"grade": grade}, TRAIN), expected)


def test_other_values_are_standardised_numbers_with_a_column_for_the_missing():
    thickness = ClinicalLabel(np.array([200.0, 300.0, np.nan, 400.0, 500.0]), Within(25), "")
    columns = clinical_columns({"cst": thickness}, TRAIN)
    np.testing.assert_allclose(columns[TRAIN, 0].sum(), 0, atol=1e-6)
    np.testing.assert_allclose(columns[[0, 1, 3], 0].std(), 1, atol=1e-6)
    np.testing.assert_array_equal(columns[:, 1], [0, 0, 1, 0, 0])
    assert columns[2, 0] == 0
    assert columns[4, 0] > columns[3, 0]


def test_a_label_without_any_value_says_nothing():
    columns = clinical_columns({"a": ClinicalLabel(np.full(5, np.nan), Within(1), "")}, TRAIN)
    np.testing.assert_array_equal(columns, [[0, 1]] * 5)
    columns = clinical_columns({"a": ClinicalLabel(np.full(5, np.nan), Equal(), "")}, TRAIN)
    assert columns.shape == (5, 0)

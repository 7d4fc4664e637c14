import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error, r2_score, roc_auc_score

from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.metrics import (
    weighted_accuracy,
    weighted_kappa,
    weighted_macro_auroc,
    weighted_mae,
    weighted_r2,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 90).astype(np.float32)
DECIDED = np.clip(LABELS + RNG.integers(-1, 2, 90), 0, 3).astype(np.float64)
PROBABILITIES = RNG.dirichlet(np.ones(4), 90) + 0.3 * np.eye(4)[LABELS.astype(int)]
PROBABILITIES /= PROBABILITIES.sum(axis=1, keepdims=True)
NUMBERS = RNG.normal(300, 40, 90).astype(np.float32)
PREDICTED = NUMBERS + RNG.normal(0, 30, 90)
WEIGHTS = bootstrap_weights(np.arange(90).astype(str), 20)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (
            lambda w: weighted_macro_auroc(PROBABILITIES, LABELS, w),
            lambda w: roc_auc_score(LABELS, PROBABILITIES, multi_class="ovr", average="macro", sample_weight=w),
        ),
        (
            lambda w: weighted_accuracy(DECIDED, LABELS, w),
            lambda w: accuracy_score(LABELS, DECIDED, sample_weight=w),
        ),
        (
            lambda w: weighted_kappa(DECIDED, LABELS, w, 4),
            lambda w: cohen_kappa_score(LABELS, DECIDED, weights="quadratic", sample_weight=w),
        ),
        (
            lambda w: weighted_mae(PREDICTED, NUMBERS, w),
            lambda w: mean_absolute_error(NUMBERS, PREDICTED, sample_weight=w),
        ),
        (lambda w: weighted_r2(PREDICTED, NUMBERS, w), lambda w: r2_score(NUMBERS, PREDICTED, sample_weight=w)),
    ],
    ids=["macro AUROC", "accuracy", "kappa", "MAE", "R2"],
)
def test_every_weighting_gives_what_scikit_learn_gives(mine, theirs):
    np.testing.assert_allclose(mine(WEIGHTS), [theirs(row) for row in WEIGHTS], rtol=1e-6)


def test_resamples_of_patients_equal_an_explicit_loop():
    patients = np.repeat(np.arange(30), 3).astype(str)
    weights = bootstrap_weights(patients, 10)
    for row in weights[1:]:
        images = np.repeat(np.arange(90), row.astype(int))  # each as often as its patient was drawn
        expected = r2_score(NUMBERS[images], PREDICTED[images])
        assert weighted_r2(PREDICTED, NUMBERS, row[None])[0] == pytest.approx(expected, rel=1e-6)
        expected = cohen_kappa_score(LABELS[images], DECIDED[images], weights="quadratic")
        assert weighted_kappa(DECIDED, LABELS, row[None], 4)[0] == pytest.approx(expected)


def test_what_is_undefined_is_nan():
    ones, nothing = np.ones((1, 90)), np.zeros((1, 90))
    assert np.isnan(weighted_r2(PREDICTED, np.full(90, 7, np.float32), ones))
    assert np.isnan(weighted_kappa(DECIDED * 0, LABELS * 0, ones, 4))
    assert np.isnan(weighted_macro_auroc(PROBABILITIES, LABELS * 0, ones))
    assert np.isnan(weighted_macro_auroc(PROBABILITIES, LABELS, (LABELS != 2)[None].astype(float)))
    assert np.isnan(weighted_mae(PREDICTED, NUMBERS, nothing))

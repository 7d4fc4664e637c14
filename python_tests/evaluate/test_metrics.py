import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.metrics import (
    auprc_of_targets,
    auroc_of_targets,
    mean_ignoring_nan,
    weighted_auroc,
)


def readings(count, distinct, seed=0):
    """Scores with ties, labels, and patients with several images each."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.3).astype(np.float32)
    scores = rng.integers(0, distinct, count) / distinct + 0.2 * labels * (distinct > 50)
    return scores, labels, np.array([f"P{p}" for p in rng.integers(0, count // 4, count)])


@pytest.mark.parametrize("distinct", [3, 20, 10_000])
def test_every_resample_equals_scikit_learn_on_the_resampled_images(distinct):
    scores, labels, patients = readings(200, distinct)
    weights = bootstrap_weights(patients, 25, seed=3)
    aurocs = weighted_auroc(scores, labels, weights)
    for auroc, counts in zip(aurocs, weights.astype(int), strict=True):
        chosen = np.repeat(np.arange(len(scores)), counts)
        assert auroc == pytest.approx(roc_auc_score(labels[chosen], scores[chosen]), abs=1e-12)


def test_unlabelled_images_and_undefined_scores_are_left_out():
    scores, labels, _ = readings(60, 1000)
    targets, probabilities = np.stack([labels, labels], 1), np.stack([scores, scores], 1)
    targets[::3, 0] = np.nan
    probabilities[:, 1] = np.nan
    aurocs = auroc_of_targets(probabilities, targets, np.ones((1, 60)))
    known = np.isfinite(targets[:, 0])
    assert aurocs[0, 0] == pytest.approx(roc_auc_score(labels[known], scores[known]))
    assert np.isnan(aurocs[1, 0])
    assert np.isnan(auprc_of_targets(probabilities, targets)[1])


def test_a_single_class_has_no_auroc():
    targets = np.array([[1, 0], [1, 1], [np.nan, 0]], np.float32)
    scores = np.random.default_rng(0).random((3, 2))
    assert np.isnan(auroc_of_targets(scores, targets, np.ones((1, 3)))[0, 0])


def test_mean_ignoring_nan_is_nan_only_where_nothing_is_known():
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    np.testing.assert_array_equal(mean_ignoring_nan(values, axis=0), [2.0, np.nan])

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmcuda.evaluate.probe import fit_probe, out_of_fold
from mmcuda.targets import Binary
from mmcuda.targets.base import INVERSE_REGULARISATION


def binary(targets):
    """A binary target for every column."""
    return {str(t): Binary() for t in range(targets.shape[1])}


def features_and_targets():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(120, 6)) * [1, 10, 0.1, 1, 1, 0] + 5).astype(np.float32)  # the last one is constant
    return features, (features[:, :2] + rng.normal(size=(120, 2)) > [5, 5]).astype(np.float32)


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_the_folded_weights_give_the_probabilities_of_the_scikit_learn_pipeline(weights):
    features, targets = features_and_targets()
    probabilities = fit_probe(features, targets, binary(targets), balanced=weights == "balanced").predict(features)
    for t in range(2):
        logistic = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, class_weight=weights)
        model = make_pipeline(StandardScaler(), logistic)
        model.fit(features, targets[:, t])
        np.testing.assert_allclose(probabilities[:, t], model.predict_proba(features)[:, 1], atol=1e-6)


def test_unlabelled_cells_are_left_out_of_their_target_only():
    features, targets = features_and_targets()
    holes = targets.copy()
    holes[:30, 0] = np.nan
    full, partial = fit_probe(features, targets, binary(targets)), fit_probe(features, holes, binary(holes))
    np.testing.assert_array_equal(full.weight[1], partial.weight[1])
    assert not np.allclose(full.weight[0], partial.weight[0])


def test_a_target_with_one_class_is_undefined_and_does_not_disturb_the_others():
    features, targets = features_and_targets()
    targets[:, 0] = 1
    probabilities = fit_probe(features, targets, binary(targets)).predict(features)
    assert np.isnan(probabilities[:, 0]).all()
    assert np.isfinite(probabilities[:, 1]).all()


def test_out_of_fold_scores_come_from_probes_that_did_not_see_the_patient():
    """Labels that are the patient's own, and features that only name the patient: what is memorised does not help."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.array([f"P{p}" for p in range(30)]), 4)
    features = np.repeat(rng.normal(size=(30, 60)), 4, axis=0).astype(np.float32)
    targets = np.repeat((rng.random((30, 1)) < 0.5).astype(np.float32), 4, axis=0)
    assert roc_auc_score(targets, fit_probe(features, targets, binary(targets)).predict(features)) > 0.95
    scores = out_of_fold(features, targets, patients, binary(targets))
    assert np.isfinite(scores).all()
    assert abs(roc_auc_score(targets, scores) - 0.5) < 0.25
    np.testing.assert_array_equal(scores, out_of_fold(features, targets, patients, binary(targets)))


def test_out_of_fold_scores_do_not_fall_where_positives_gather():
    """Features without any content: a fold rich in positives leaves others poor in them, yet all scores are alike."""
    patients = np.repeat(np.array([f"P{p}" for p in range(10)]), 12)
    targets = np.repeat((np.arange(10) < 3).astype(np.float32), 12)[:, None]
    features = np.zeros((120, 4), np.float32)
    np.testing.assert_allclose(out_of_fold(features, targets, patients, binary(targets)), 0.3, atol=1e-3)


def test_out_of_fold_scores_are_nan_where_the_other_patients_have_one_class():
    features, targets = features_and_targets()
    patients = np.array([f"P{i // 60}" for i in range(120)])
    targets[:60, 0] = 0  # the second patient's scores come from the first, and the first's from the second
    scores = out_of_fold(features, targets, patients, binary(targets))
    assert np.isfinite(scores[:60]).all()
    assert np.isnan(scores[60:, 0]).all()
    assert np.isfinite(scores[60:, 1]).all()
    assert np.isnan(out_of_fold(features, targets, np.full(120, "P0"), binary(targets))).all()

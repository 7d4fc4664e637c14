import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmcuda.evaluate.probe import INVERSE_REGULARISATION, fit_probe


def features_and_targets():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(120, 6)) * [1, 10, 0.1, 1, 1, 0] + 5).astype(np.float32)  # the last one is constant
    return features, (features[:, :2] + rng.normal(size=(120, 2)) > [5, 5]).astype(np.float32)


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_the_folded_weights_give_the_probabilities_of_the_scikit_learn_pipeline(weights):
    features, targets = features_and_targets()
    probabilities = fit_probe(features, targets, balanced=weights == "balanced").probabilities(features)
    for t in range(2):
        logistic = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, class_weight=weights)
        model = make_pipeline(StandardScaler(), logistic)
        model.fit(features, targets[:, t])
        np.testing.assert_allclose(probabilities[:, t], model.predict_proba(features)[:, 1], atol=1e-6)


def test_unlabelled_cells_are_left_out_of_their_target_only():
    features, targets = features_and_targets()
    holes = targets.copy()
    holes[:30, 0] = np.nan
    full, partial = fit_probe(features, targets), fit_probe(features, holes)
    np.testing.assert_array_equal(full.weight[1], partial.weight[1])
    assert not np.allclose(full.weight[0], partial.weight[0])


def test_a_target_with_one_class_is_undefined_and_does_not_disturb_the_others():
    features, targets = features_and_targets()
    targets[:, 0] = 1
    probabilities = fit_probe(features, targets).probabilities(features)
    assert np.isnan(probabilities[:, 0]).all()
    assert np.isfinite(probabilities[:, 1]).all()

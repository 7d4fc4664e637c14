import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from mmcuda.evaluate.calibration import BINS, calibration_metrics


def scored(count=2000, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.random(count)
    return probabilities, (rng.random(count) < probabilities).astype(np.float32)


def test_errors_are_those_of_their_definitions():
    probabilities, labels = scored()
    distorted = probabilities**2
    found = calibration_metrics(distorted, labels)
    bins = np.minimum((distorted * BINS).astype(int), BINS - 1)
    gaps = [abs(distorted[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean() for b in range(BINS)]
    assert found["ece"] == pytest.approx(sum(gaps), abs=1e-6)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, distorted))


def test_true_probabilities_are_calibrated_and_distorted_ones_are_not():
    probabilities, labels = scored()
    assert calibration_metrics(probabilities, labels)["ece"] < 0.03
    assert calibration_metrics(probabilities**3, labels)["ece"] > 0.2


def test_a_single_class_and_a_constant_score_have_errors():
    constant = np.full(10, 0.3)
    assert calibration_metrics(constant, np.zeros(10, np.float32)) == pytest.approx({"ece": 0.3, "brier": 0.09})


def test_without_images_there_is_no_error():
    found = calibration_metrics(np.empty(0), np.empty(0, np.float32))
    assert np.isnan(list(found.values())).all()

import csv

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.label_efficiency import target_matrix
from mmcuda.evaluate.probe import fit_probe
from mmcuda.models.encoder import build_encoder
from mmcuda.train.checkpoint import load_checkpoint
from mmcuda.train.config import FinetuneConfig, PretrainJob
from mmcuda.train.finetune import finetune, predict
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import make_accelerator


@pytest.fixture
def encoder():
    return build_encoder("darknet_tiny", 3, 32)


def run(folder, options, encoder, readings):
    cohort, split = readings
    return finetune(make_accelerator("no"), RunFolder(folder), options, encoder, PretrainJob(), cohort, split.train)


def test_linear_mode_is_the_probe_of_the_frozen_features(tmp_path, encoder, readings):
    cohort, split = readings
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    classifier = run(tmp_path, FinetuneConfig(mode="linear"), encoder, readings)
    features = extract_features(encoder, cohort.images, np.arange(len(cohort.images)))
    probe = fit_probe(features[split.train], target_matrix(cohort)[split.train])
    np.testing.assert_allclose(
        predict(classifier, cohort, split.test), probe.probabilities(features[split.test]), atol=1e-4
    )
    weights = load_checkpoint(RunFolder(tmp_path).checkpoint("finetune-linear-seed0")).weights
    assert all((weights[f"encoder.{name}"] == tensor).all() for name, tensor in before.items())


def test_full_mode_learns_the_labelled_images_in_the_same_loop(tmp_path, encoder, readings):
    cohort, split = readings
    options = FinetuneConfig(mode="full", epochs=6, batch_size=64, learning_rate=3e-3)
    scores = predict(run(tmp_path, options, encoder, readings), cohort, split.train)
    spiculation = target_matrix(cohort)[split.train][:, list(cohort.targets).index("spiculation")]
    assert roc_auc_score(spiculation, scores[:, list(cohort.targets).index("spiculation")]) > 0.7
    with RunFolder(tmp_path).log("finetune-full-seed0").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])

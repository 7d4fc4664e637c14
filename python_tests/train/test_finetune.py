import csv
import dataclasses

import numpy as np
import pytest
import torch
from killing import Killed, KilledAtCall
from sklearn.metrics import roc_auc_score

from mmcuda.errors import UserError
from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.probe import fit_probe
from mmcuda.models.encoder import build_encoder
from mmcuda.models.heads import Classifier
from mmcuda.models.storage import load_encoder
from mmcuda.targets import Binary
from mmcuda.train.checkpoint import load_checkpoint, load_pretraining
from mmcuda.train.config import PretrainJob
from mmcuda.train.finetune import finetune, hold_out, parameter_groups, predict
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import make_accelerator

FULL = FinetuneConfig(mode="full", epochs=4, batch_size=64, learning_rate=3e-3)
JOB = PretrainJob(seed=7)


@pytest.fixture
def encoder():
    return build_encoder("darknet_tiny", 3, 32)


def run(folder, options, encoder, few, job=JOB, **arguments):
    cohort = few
    return finetune(make_accelerator("no"), RunFolder(folder), options, encoder, job, cohort, cohort.train, **arguments)


def weights_of(folder, options):
    return load_checkpoint(RunFolder(folder).checkpoint(options.name)).weights


def changed(folder, options, before):
    """Return whether each tensor of the encoder has changed."""
    weights = weights_of(folder, options)
    return {name: not torch.equal(weights[f"encoder.{name}"], tensor) for name, tensor in before.items()}


@pytest.fixture(scope="module")
def few(readings):
    """The readings with fewer training images: two steps an epoch."""
    split = dataclasses.replace(readings.split, train=readings.train[:128])
    return dataclasses.replace(readings, split=split)


@pytest.fixture
def before(encoder):
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


def test_logistic_mode_is_the_probe_of_the_frozen_features(tmp_path, encoder, before, few):
    cohort = few
    options = FinetuneConfig(mode="logistic")
    scores = predict(run(tmp_path, options, encoder, few), cohort, cohort.test)
    features = extract_features(encoder, cohort.images, np.arange(len(cohort.images)))
    probe = fit_probe(features[cohort.train], cohort.target_matrix[cohort.train], cohort.kinds)
    np.testing.assert_allclose(scores, probe.predict(features[cohort.test]), atol=1e-4)
    assert not any(changed(tmp_path, options, before).values())


def test_linear_mode_learns_on_a_frozen_encoder(tmp_path, encoder, before, few):
    options = dataclasses.replace(FULL, mode="linear", head_learning_rate=1e-2)
    assert auroc(run(tmp_path, options, encoder, few), few) > 0.6
    assert not any(changed(tmp_path, options, before).values())  # BatchNorm's statistics, too


def auroc(classifier, few):
    cohort = few
    spiculation = list(cohort.targets).index("spiculation")
    scores = predict(classifier, cohort, cohort.train)
    return roc_auc_score(cohort.target_matrix[cohort.train, spiculation], scores[:, spiculation])


def test_full_mode_trains_every_layer_and_learns(tmp_path, encoder, before, few):
    options = dataclasses.replace(FULL, epochs=6)
    assert auroc(run(tmp_path, options, encoder, few), few) > 0.7
    assert all(layer for name, layer in changed(tmp_path, FULL, before).items() if "conv.weight" in name)
    with RunFolder(tmp_path).log(FULL.name).open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_linear_full_mode_begins_with_the_logistic_regression_and_its_features(tmp_path, encoder, before, few):
    cohort = few
    scores = predict(run(tmp_path, FinetuneConfig(mode="logistic"), encoder, few), cohort, cohort.test)
    options = dataclasses.replace(FULL, mode="linear_full", learning_rate=1e-6, head_learning_rate=1e-6, epochs=1)
    np.testing.assert_allclose(predict(run(tmp_path, options, encoder, few), cohort, cohort.test), scores, atol=1e-2)
    layers = {name for name, layer in changed(tmp_path, options, before).items() if layer}
    assert "stem.conv1.conv.weight" in layers
    assert not any("running" in name for name in layers)


def test_a_checkpoint_knows_pretraining_and_options(tmp_path, encoder, few):
    trained = run(tmp_path, FULL, encoder, few)
    place = RunFolder(tmp_path).checkpoint(FULL.name)
    assert load_pretraining(place) == JOB
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(load_encoder(place)(images), trained.encoder(images))
    with pytest.raises(UserError, match=r"cannot resume with --finetune.layer_decay 0.5"):
        run(tmp_path, dataclasses.replace(FULL, layer_decay=0.5), encoder, few)


def test_a_target_with_one_class_is_left_out(tmp_path, encoder, few):
    cohort = few
    single = cohort.targets["calcified"].copy()
    single[cohort.train] = 0
    cohort = cohort.with_labels(targets=cohort.targets | {"calcified": single})
    classifier = run(tmp_path, FinetuneConfig(), encoder, cohort)
    assert tuple(classifier.targets) == ("malignancy", "spiculation", "lobulation")
    scores = predict(classifier, cohort, cohort.test)
    assert np.isnan(scores[:, 3]).all()
    assert np.isfinite(scores[:, :3]).all()
    cohort = cohort.with_labels(targets={"calcified": single})
    with pytest.raises(
        UserError, match=r"several classes or values among the \d+ labelled images, got one each of calcified"
    ):
        run(tmp_path / "none", FinetuneConfig(), encoder, cohort)


@pytest.mark.parametrize("name", ["darknet_tiny", "vit_tiny_patch16_224"])
def test_lower_layers_learn_more_slowly(name):
    classifier = Classifier(build_encoder(name, 3, 32), {"drusen": Binary()})
    options = dataclasses.replace(FULL, layer_decay=0.5, head_learning_rate=0.1)
    groups = parameter_groups(classifier, options)
    rates = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(classifier.parameters()))
    named = dict(classifier.named_parameters())
    assert rates[named["linear.weight"]] == 0.1
    in_order = [rates[p] for name, p in named.items() if name.startswith("encoder.")]
    assert in_order == sorted(in_order)
    assert in_order[-1] == options.learning_rate
    assert in_order[0] <= options.learning_rate / 2**3
    decayed = {parameter for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert not any(p in decayed for n, p in named.items() if p.ndim <= 1 or "pos_embed" in n)


# ---- early stopping ------------------------------------------------------------------------------------------------

EARLY = dataclasses.replace(FULL, epochs=8, batch_size=32, patience=2, learning_rate=1e-2, head_learning_rate=3e-2)


def test_the_held_out_patients_are_not_trained_on(few):
    cohort = few
    train, validation = hold_out(cohort, cohort.train, EARLY)
    assert sorted([*train, *validation]) == sorted(cohort.train)
    assert not set(cohort.patients[train]) & set(cohort.patients[validation])
    with pytest.raises(UserError, match="--patience needs at least 2 labelled patients to hold one out, got 1"):
        hold_out(cohort, cohort.train[cohort.patients[cohort.train] == cohort.patients[cohort.train[0]]], EARLY)


def validation_losses(folder):
    with RunFolder(folder).validation_log(EARLY.name).open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_training_stops_and_keeps_the_epoch_with_the_lowest_validation_loss(tmp_path, encoder, few, capsys):
    cohort = few
    validation = cohort.test  # a split of the data's own
    classifier = run(tmp_path, EARLY, encoder, few, validation=validation)
    losses = validation_losses(tmp_path)
    best = int(np.argmin(losses))
    assert len(losses) - 1 == min(best + EARLY.patience, EARLY.epochs)
    assert f"kept epoch {best} of {len(losses) - 1}  validation loss {losses[best]:.3f}" in capsys.readouterr().out

    targets = cohort.target_matrix[validation]
    scores, labelled = predict(classifier, cohort, validation), np.isfinite(targets)
    right = np.where(targets == 1, scores, 1 - scores)[labelled]
    assert -np.log(right).mean() == pytest.approx(losses[best], rel=1e-4)

    place = RunFolder(tmp_path).best_checkpoint(EARLY.name)
    weights = classifier.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_checkpoint(place).weights.items())


def test_stopped_and_resumed_it_keeps_the_same_epoch_and_weights(tmp_path, few, capsys):
    def start():
        torch.manual_seed(0)
        return build_encoder("darknet_tiny", 3, 32)

    expected = run(tmp_path / "whole", EARLY, start(), few).state_dict()
    whole = validation_losses(tmp_path / "whole")
    KilledAtCall.left = 4  # inside the second epoch
    with pytest.raises(Killed):
        run(tmp_path, EARLY, start(), few, dataclasses.replace(JOB, augment=KilledAtCall()))
    assert 0 < len(validation_losses(tmp_path)) < len(whole)
    resumed = run(tmp_path, EARLY, start(), few).state_dict()
    assert validation_losses(tmp_path) == whole
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in expected.items())

    capsys.readouterr()
    again = run(tmp_path, EARLY, start(), few).state_dict()
    assert "finished before" in capsys.readouterr().out
    assert all(torch.equal(tensor, again[name]) for name, tensor in expected.items())

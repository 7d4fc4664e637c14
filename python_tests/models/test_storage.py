import dataclasses
import json

import pytest
import torch

from mmcuda.errors import UserError
from mmcuda.models.description import DESCRIPTION, ModelDescription, read_description
from mmcuda.models.encoder import build_encoder
from mmcuda.models.heads import Classifier
from mmcuda.models.storage import WEIGHTS, find_checkpoint, load_classifier, load_encoder, save_weights
from mmcuda.targets import Binary

TARGETS = {"drusen": Binary(), "fluid": Binary()}
DARKNET = ModelDescription("darknet_tiny", 32, ("red", "green", "blue"), "files-v1-3", targets=TARGETS)
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def write(folder, weights, description=DARKNET):
    folder.mkdir(parents=True)
    save_weights(folder, weights)
    (folder / DESCRIPTION).write_text(json.dumps(description.as_json()))
    return folder


def classifier():
    return Classifier(build_encoder("darknet_tiny", 3, 32), TARGETS).eval()


def test_a_classifier_and_its_encoder_come_back(tmp_path):
    model = classifier()
    folder = write(tmp_path / "model", model.state_dict())
    loaded = load_classifier(folder)
    assert loaded.targets == TARGETS
    assert torch.equal(loaded(IMAGES), model(IMAGES))
    assert torch.equal(load_encoder(folder)(IMAGES), model.encoder(IMAGES))


def test_images_are_normalised_as_described(tmp_path):
    model = classifier()
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    folder = write(tmp_path / "model", model.state_dict(), dataclasses.replace(DARKNET, mean=mean, std=std))
    normalised = (IMAGES - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(load_classifier(folder)(IMAGES), model(normalised))


def test_an_encoder_alone_has_no_classifier(tmp_path):
    weights = classifier().state_dict()
    folder = write(tmp_path / "model", weights, dataclasses.replace(DARKNET, targets={}))
    with pytest.raises(UserError, match=r"is an encoder without a classifier: train one with mmcuda finetune"):
        load_classifier(folder)


def test_weights_of_another_model_are_refused(tmp_path):
    folder = write(tmp_path / "a", classifier().state_dict(), dataclasses.replace(DARKNET, architecture="resnet18"))
    with pytest.raises(UserError, match=r"for the encoder resnet18 do not fit: .* must be .* got"):
        load_encoder(folder)
    folder = write(
        tmp_path / "b", classifier().state_dict(), dataclasses.replace(DARKNET, targets={"drusen": Binary()})
    )
    with pytest.raises(UserError, match=r"for its 1 targets do not fit: bias must be \[1\], got \[2\]"):
        load_classifier(folder)
    (folder / WEIGHTS).write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not describe a model: Expecting"),
        ("[]", "does not describe a model"),
        ('{"architecture": "resnet18"}', "does not describe a model: channels is missing or unknown"),
        (None, "is missing"),
    ],
)
def test_a_damaged_description_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / DESCRIPTION).write_text(text)
    with pytest.raises(UserError, match=message):
        read_description(tmp_path)


def test_an_architecture_that_timm_lacks_is_named(tmp_path):
    folder = write(tmp_path / "model", {}, dataclasses.replace(DARKNET, architecture="resnet19"))
    with pytest.raises(UserError, match=r"architecture must be one of timm .*, got resnet19"):
        load_encoder(folder)


def test_a_checkpoint_is_found_from_the_folders_around_it(tmp_path):
    training = tmp_path / "checkpoints" / "finetune-full-seed0"
    last = write(training / "last", {})
    for path in (last, training, tmp_path):
        assert find_checkpoint(path) == last
    best = write(training / "best", {})
    assert find_checkpoint(training) == find_checkpoint(tmp_path) == best
    write(tmp_path / "checkpoints" / "other" / "last", {})
    with pytest.raises(UserError, match=r"holds 2 checkpoints: name one of them, such as .*finetune-full-seed0"):
        find_checkpoint(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint at .*nothing: expected a folder with model.safetensors"):
        find_checkpoint(tmp_path / "nothing")

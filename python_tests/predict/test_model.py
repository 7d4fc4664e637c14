import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from random_model import SIZE, write_model
from scipy.special import expit

import mmcuda
from mmcuda.data.image_files import FileImages
from mmcuda.errors import UserError
from mmcuda.models.storage import load_classifier

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 1, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture
def model(model_folder):
    return mmcuda.load(model_folder)


def test_predictions_are_the_sigmoid_of_the_classifier(model, model_folder):
    with torch.no_grad():
        logits = load_classifier(model_folder)(torch.from_numpy(PIXELS).float() / 255).numpy()
    scores = model.predict(PIXELS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expit(logits), rtol=1e-5)
    assert list(model.targets) == ["drusen", "fluid"]
    assert repr(model) == f"Model(darknet_tiny, 1 x {SIZE} x {SIZE}: drusen, fluid)"


def test_features_are_those_of_the_encoder(model):
    with torch.no_grad():
        features = model.encoder(torch.from_numpy(PIXELS).float() / 255).numpy()
    np.testing.assert_allclose(model.embed(PIXELS), features, rtol=1e-5, atol=1e-6)
    assert features.shape == (5, 128)


def test_batches_do_not_matter(model):
    np.testing.assert_allclose(model.predict(PIXELS, batch_size=2), model.predict(PIXELS), rtol=1e-5)
    assert model.predict(PIXELS[:0]).shape == (0, 2)
    assert model.embed(PIXELS[:0]).shape == (0, 128)


def test_images_may_be_tensors_floats_sequences_or_mapped(model, tmp_path):
    expected = model.predict(PIXELS)
    np.save(tmp_path / "pixels.npy", PIXELS)
    for images in (
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).float() / 255,
        (PIXELS / 255).astype(np.float64),
        list(PIXELS),
        tuple(torch.from_numpy(PIXELS)),
        np.load(tmp_path / "pixels.npy", mmap_mode="r"),
    ):
        np.testing.assert_allclose(model.predict(images), expected, rtol=1e-4)


def test_files_are_read_as_those_of_training(model, pictures):
    folder, names = pictures
    source = FileImages(folder, np.array(names), channels=1)
    pixels = np.stack([source.read(row, SIZE).pixels for row in range(len(names))])
    expected = model.predict(pixels)
    paths = [folder / name for name in names]
    np.testing.assert_array_equal(model.predict(paths), expected)
    np.testing.assert_allclose(model.predict([str(path) for path in paths], batch_size=2), expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict(paths[0]), expected[:1], rtol=1e-5)


def test_uint8_images_of_any_size_are_fitted_as_files_are(model, pictures):
    folder, names = pictures
    pixels = np.asarray(Image.open(folder / names[0]))
    np.testing.assert_array_equal(model.predict(pixels[None, None]), model.predict(folder / names[0]))
    mixed = model.predict([pixels[None], PIXELS[0]])
    np.testing.assert_allclose(mixed, np.concatenate([model.predict(folder / names[0]), model.predict(PIXELS[:1])]))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (PIXELS[0], ValueError, rf"images must be \[N, 1, H, W\], got \[1, {SIZE}, {SIZE}\]"),
        (np.repeat(PIXELS, 3, axis=1), ValueError, rf"images must be \[N, 1, H, W\], got \[5, 3, {SIZE}, {SIZE}\]"),
        (PIXELS.astype(np.int64), TypeError, r"images must be uint8 in 0..255 or floating in 0..1, got torch.int64"),
        (PIXELS.astype(np.float32), ValueError, r"floating images must be in 0..1, got values in \d+..255"),
        (np.full((1, 1, SIZE, SIZE), np.nan), ValueError, r"must be in 0..1, got values in nan..nan"),
        (
            np.zeros((1, 1, 8, 8)),
            ValueError,
            r"must be \[N, 1, 32, 32\], got \[1, 1, 8, 8\]; uint8 may",
        ),
        ([PIXELS[0], "a.png"], TypeError, r"images must be files, arrays or tensors, got a list of ndarray, str"),
        ([1, 2], TypeError, r"images must be files, arrays or tensors, got a list of int"),
    ],
)
def test_images_of_another_kind_are_refused(model, images, error, message):
    with pytest.raises(error, match=message):
        model.predict(images)


def test_all_files_that_cannot_be_read_are_named(model, pictures, tmp_path):
    folder, names = pictures
    (tmp_path / "empty.png").touch()
    with pytest.raises(UserError, match=r"empty.png: empty \(0 bytes\); .*missing.png: missing"):
        model.predict([tmp_path / "empty.png", folder / names[0], tmp_path / "missing.png"])


def test_a_model_of_drawn_images_reads_no_files(tmp_path, pictures):
    folder, names = pictures
    model = mmcuda.load(write_model(tmp_path / "lidc", channels=("a", "b", "c"), reader="lidc-v2"))
    with pytest.raises(UserError, match=r"the model is of images by the reader lidc-v2, these come from files-v1-3"):
        model.predict(folder / names[0])


def test_another_version_of_the_reader_is_told(tmp_path, pictures):
    folder, names = pictures
    model = mmcuda.load(write_model(tmp_path / "older", reader="files-v0-1"))
    with pytest.warns(UserWarning, match="the model is of images by files-v0-1, these are read by files-v1-1"):
        model.predict(folder / names[0])


def test_an_encoder_embeds_but_does_not_predict(tmp_path):
    model = mmcuda.load(write_model(tmp_path / "encoder", targets=()))
    assert model.embed(PIXELS).shape == (5, 128)
    with pytest.raises(UserError, match="the model is an encoder without a classifier"):
        model.predict(PIXELS)


def test_thresholds_come_with_the_model(tmp_path):
    assert mmcuda.load(write_model(tmp_path / "model", thresholds={"drusen": 0.3})).thresholds == {"drusen": 0.3}


ALONE = """
import sys, mmcuda
heavy = {"timm", "pandas", "sklearn", "PIL", "jsonargparse", "scipy", "safetensors", "torchvision"} & set(sys.modules)
print(heavy or "light")
"""


def test_the_package_is_imported_without_what_load_needs():
    result = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "light"

"""A classifier of images in files, with random weights, and such images."""

import numpy as np
import pytest
from PIL import Image
from random_model import write_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "grey")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of grey images of several formats and sizes, and a file that is no image."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    names = ["a.png", "b.tif", "deep/c d.png", "deep/ü.npy", "e.PNG"]
    (folder / "deep").mkdir()
    for number, name in enumerate(names):
        pixels = rng.integers(0, 256, (40 + number, 50), dtype=np.uint8)
        if name.endswith(".npy"):
            np.save(folder / name, pixels)
        else:
            Image.fromarray(pixels).save(folder / name, format="TIFF" if name.endswith("tif") else "PNG")
    (folder / "notes.txt").write_text("not an image")
    return folder, names

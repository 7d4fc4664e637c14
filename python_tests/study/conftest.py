"""A small study on a table of small images, whose size is the clinical label and whose shape the target."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from running import run


def disc_or_square(rng, square, size):
    """An image of 24 x 24 pixels, noisy."""
    y, x = np.mgrid[-1:1:24j, -1:1:24j] + rng.uniform(-0.2, 0.2, (2, 1, 1))
    distance = np.maximum(abs(x), abs(y)) if square else np.hypot(x, y)
    return np.clip(200 * (distance < size) + rng.normal(20, 12, (24, 24)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def cohort_csv(tmp_path_factory):
    """40 patients with 2 images each; both clinical values have gaps."""
    root, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    rows = []
    for number in range(80):
        square, size = rng.random() < 0.5, rng.uniform(0.2, 0.8)
        Image.fromarray(disc_or_square(rng, square, size)).save(root / f"{number}.png")
        rows.append(
            {
                "path": f"{number}.png",
                "patient": f"p{number // 2:02d}",
                "size": size,
                "grade": int(4 * size) if number % 9 else None,
                "square": int(square),
                "large": int(size > 0.5),
            }
        )
    pd.DataFrame(rows).to_csv(root / "cohort.csv", index=False)
    return root / "cohort.csv"


@pytest.fixture(scope="session")
def study_yaml(cohort_csv):
    """A study of eight cells and three encoders, and its configuration file."""
    path = cohort_csv.with_name("study.yaml")
    path.write_text(f"""
arms: [simclr, supervised, clinical-input, clinical:size]
seeds: 1
data:
  source: table
  file: {cohort_csv}
  image: path
  group: patient
  clinical: {{size: {{within: 0.1}}, grade: equal}}
  targets: [square, large]
  image_size: 24
  cache_dir: {cohort_csv.parent / "cache"}
pretrain: {{epochs: 2, batch_size: 16}}
evaluate: {{label_fractions: [0.5, 1.0], draws: 2, bootstrap: 40}}
supervised: {{epochs: 1, batch_size: 16}}
""")
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums are rounded alike only with the same number of threads in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def whole(study_yaml, tmp_path_factory):
    """The study, computed without interruption: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    return folder, run(folder, study_yaml)

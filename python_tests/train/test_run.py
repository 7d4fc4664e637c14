"""`mmcuda train`: killed in the middle and continued, it ends with the numbers of an uninterrupted run."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mmcuda.cli import main

OPTIONS = [
    *("--arms", "[clinical]", "--data.test_fraction", "0.9", "--pretrain.epochs", "2"),
    *("--pretrain.batch_size", "64", "--evaluate.label_fractions", "[0.1,1.0]", "--evaluate.draws", "1"),
    *("--evaluate.bootstrap", "20"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums are rounded alike only with the same number of threads in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(out, *options):
    """Run in this process; return what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        assert main(["train", "--out", str(out), *options]) == 0
    return screen.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, run(folder, *OPTIONS)


def test_the_run_folder_is_complete(whole):
    folder, output = whole
    for name in (
        *("config.yaml", "environment.json", "cohort.json", "metrics.json", "metrics.csv", "levels.csv", "results.csv"),
        *("predictions.npz", "embedding.npz", "samples.npz", "report.html", "README.md", "logs/clinical-seed0.csv"),
        *("checkpoints/clinical-seed0/last/model.safetensors", "checkpoints/clinical-seed0/last/state.pt"),
    ):
        assert (folder / name).is_file(), name
    labels = [line.split()[0] for line in output.splitlines()]
    assert [label for label in labels if label in ("data", "labels", "pretrain", "probe", "report")] == [
        *("data", "labels", "pretrain", "probe", "report")
    ]
    with np.load(folder / "predictions.npz") as arrays:
        assert set(arrays) == {"targets", "target_names", "patients", "clinical/0.1/seed0", "clinical/1.0/seed0"}
        assert arrays["clinical/0.1/seed0"].shape == arrays["targets"].shape
    seconds = json.loads((folder / "environment.json").read_text())["seconds"]
    assert seconds["cells"] > 0


@pytest.fixture
def no_report(monkeypatch):
    """The report is drawn once, by the first run of this file."""
    monkeypatch.setattr("mmcuda.study.run.write_report", lambda folder, missing: folder / "report.html")


def test_killed_while_training_and_resumed_it_ends_with_the_same_numbers(whole, tmp_path, no_report):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "mmcuda", "train", "--out", str(folder), *OPTIONS]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    log = folder / "logs" / "clinical-seed0.csv"
    deadline = time.monotonic() + 120
    while not (log.exists() and ",2," in log.read_text()):  # a step of the second epoch
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "metrics.json").exists()

    run(folder, "--resume")
    for name in ("metrics.json", "metrics.csv", "levels.json", "results.csv", "cohort.json", "config.yaml"):
        assert (folder / name).read_text() == (whole[0] / name).read_text(), name
    with np.load(folder / "predictions.npz") as ours, np.load(whole[0] / "predictions.npz") as theirs:
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_finished_run_is_not_repeated(whole, no_report):
    folder, _ = whole
    weights = folder / "checkpoints" / "clinical-seed0" / "last" / "model.safetensors"
    cell = folder / "cells" / "clinical" / "1.0-seed0.npz"
    before = weights.stat().st_mtime_ns, cell.stat().st_mtime_ns
    assert "2 of 2 cells finished before" in run(folder, "--resume")
    assert (weights.stat().st_mtime_ns, cell.stat().st_mtime_ns) == before


def test_the_map_is_of_the_encoder_that_the_report_names(tmp_path):
    folder = tmp_path / "run"
    quick = ["--evaluate.label_fractions", "[1.0]", "--evaluate.bootstrap", "5", "--pretrain.epochs", "1"]
    run(folder, "--arms", "[simclr,random]", "--data.test_fraction", "0.9", "--data.image_size", "16", *quick)
    features = tmp_path / "features.npz"
    with np.load(folder / "embedding.npz") as shown:
        name = str(shown["encoder"])
        assert main(["embed", str(folder / "checkpoints" / name), "--out", str(features)]) == 0
        with np.load(features) as arrays:
            np.testing.assert_allclose(shown["features"], arrays["features"][arrays["split"] == "test"], atol=1e-5)
        assert (
            f"the features of the encoder of {shown['arm']} (seed {shown['seed']})"
            in (folder / "report.html").read_text()
        )
    assert name == "simclr-seed0"

"""A whole study: killed in the middle and continued, it ends with the numbers of one that was not."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from running import run

from mmcuda.cli import main

ARMS = ["simclr", "supervised", "clinical-input", "clinical:size"]


def contents(folder, *patterns):
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


NUMBERS = ("results.csv", "metrics.*", "levels.*", "predictions.npz", "embedding.npz", "cells/*/*.npz")


def test_every_cell_is_computed_and_the_tables_are_tidy(whole):
    folder, screen = whole
    cells, results = pd.read_csv(folder / "metrics.csv"), pd.read_csv(folder / "results.csv")
    keys = [
        (arm, fraction, target) for arm in ARMS for fraction in (0.5, 1.0) for target in ("square", "large", "mean")
    ]
    assert [tuple(key) for key in results[["arm", "label_fraction", "target"]].to_numpy()] == keys
    assert len(cells) == len(keys)
    assert results["auroc"].tolist() == pytest.approx(
        cells.set_index(["arm", "label_fraction", "target"]).loc[keys, "auroc"]
    )
    compared = results["arm"] != "simclr"
    assert results.loc[compared, ["difference", "difference_low", "difference_high", "p"]].notna().all(axis=None)
    assert results.loc[~compared, "difference"].isna().all()
    assert len(contents(folder, "cells/*/*.npz")) == 8
    assert "8/8" in screen
    assert "mean AUROC against simclr" in screen
    assert not list(folder.glob("checkpoints/supervised*"))
    assert (folder / "report.html").is_file()


def test_killed_with_its_processes_and_resumed_it_ends_with_the_same_numbers(whole, study_yaml, tmp_path):
    folder = tmp_path / "study"
    command = [sys.executable, "-m", "mmcuda", "study", study_yaml, "--out", folder, "--processes", "2"]
    process = subprocess.Popen([*map(str, command)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while not contents(folder, "cells/*/*.npz"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "results.csv").exists()

    screen = run(folder, "--resume", "--processes", "1")
    assert "of 8 cells finished before" in screen
    assert contents(folder, *NUMBERS) == contents(whole[0], *NUMBERS)


def test_a_failed_encoder_is_told_and_the_others_go_on(capsys, whole, study_yaml, tmp_path):
    folder = tmp_path / "study"
    damaged = folder / "checkpoints" / "clinical-size-seed0" / "last"
    damaged.mkdir(parents=True)
    screen = run(folder, study_yaml, "--resume", code=1)
    assert "clinical:size at 50\xa0%, seed 0   failed: UserError: " in screen
    message = capsys.readouterr().err
    assert message.startswith("mmcuda: error: 2 of 8 cells failed: clinical:size at 50 %, seed 0 and 1 more.")
    assert message.count("\n") == 1
    assert set(pd.read_csv(folder / "results.csv")["arm"]) == set(ARMS) - {"clinical:size"}
    assert "Incomplete" in (folder / "report.html").read_text()
    (traceback,) = contents(folder, "failed/clinical%3Asize/0.5-seed0.txt").values()
    assert traceback.startswith(b"Traceback")

    damaged.rmdir()
    run(folder, "--resume")
    assert contents(folder, *NUMBERS) == contents(whole[0], *NUMBERS)
    assert "Incomplete" not in (folder / "report.html").read_text()
    assert not (folder / "failed").exists()


def test_a_finished_study_takes_another_baseline_and_more_cells_but_no_other_options(capsys, whole, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(whole[0], folder)
    before = contents(folder, "cells/*/*.npz")
    grown = ["--arms", "[simclr,clinical-input,random]", "--baseline", "random", "--evaluate.label_fractions", "[1.0]"]
    screen = run(folder, "--resume", *grown)
    assert "2 of 3 cells finished before" in screen
    assert "mean AUROC against random" in screen
    results = pd.read_csv(folder / "results.csv")
    assert results["arm"].unique().tolist() == ["random", "simclr", "clinical-input"]
    assert results["label_fraction"].unique().tolist() == [1.0]
    assert before.items() <= contents(folder, "cells/*/*.npz").items()
    assert main(["study", "--out", str(folder), "--resume", "--pretrain.epochs", "3"]) == 2
    assert "cannot resume with --pretrain.epochs 3: the run has 2" in capsys.readouterr().err


def test_the_same_labelled_patients_serve_all_arms(whole):
    cells = pd.read_csv(whole[0] / "metrics.csv")
    assert (cells.groupby(["label_fraction", "target"])["n_train"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--arms", "[simclr,clinical:sise]"],
            "the arm clinical:sise must name a clinical label of size, grade: did you",
        ),
        (["--arms", "[simclr,clinicl]"], "arms must be among random, imagenet, simclr, "),
        (
            ["--methods.simclr.labels", "[size]"],
            "simclr has no option labels: it is an option of clinical and shuffled",
        ),
        (["--methods.clinical.labels", "[size]"], "clinical: an arm of a study chooses its labels itself"),
        (["--methods.shuffled.temperature", "2"], "methods.shuffled: shuffled has the options of clinical: set"),
        (["--arms", "[simclr]", "--methods.clinical.temperature", "2"], "methods.clinical: no arm has this method"),
        (["--methods.simclr.temperature", "-1"], "simclr.temperature must be positive and finite, got -1"),
        (
            ["--baseline", "random"],
            "--baseline must be among the arms simclr, supervised, clinical-input, clinical:size",
        ),
        (["--arms", "[imagenet]"], "the arm imagenet needs --encoder.weights FILE"),
        (["--supervised.seed", "3"], "--supervised.seed has no meaning in a study, where --seeds takes its place"),
        (["--supervised.mode", "linear"], "--supervised.mode must be full"),
        (["--data.clinical", "null"], "the arm clinical-input needs clinical labels"),
        (["--config", "none.yaml"], "--config: File does not exist"),
    ],
)
def test_a_user_error_is_one_line_and_leaves_nothing_behind(capsys, study_yaml, tmp_path, options, message):
    assert main(["study", str(study_yaml), "--out", str(tmp_path / "study"), *options]) == 2
    assert capsys.readouterr().err.startswith(f"mmcuda: error: {message}")
    assert not (tmp_path / "study").exists()

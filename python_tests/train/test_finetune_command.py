import csv

import numpy as np
import pandas as pd
import pytest
from table_cohort import write_cohort

import mmcuda
from mmcuda.cli import main
from mmcuda.errors import UserError
from mmcuda.evaluate.threshold import choose_threshold
from mmcuda.targets import Binary
from mmcuda.train.finetune_command import finetune_command
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import RunFolder

EARLY = FinetuneConfig(mode="full", epochs=4, batch_size=16, patience=2, bootstrap=5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """An untrained encoder of a table with a split of its own, and that table."""
    folder = tmp_path_factory.mktemp("cohort")
    arguments = write_cohort(folder)
    assert main(["pretrain", "--method", "random", *arguments, "--out", str(folder / "run")]) == 0
    return folder / "run", pd.read_csv(folder / "cohort.csv")


@pytest.fixture(scope="module")
def tuned(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tuned"
    finetune_command(cohort[0], EARLY, out, resume=False)
    return out


def test_early_stopping_and_thresholds_use_the_validation_split_of_the_data(cohort, tuned):
    encoder, table = cohort
    rows = table[table["split"] == "validation"].dropna(subset="drusen")
    model = mmcuda.load(tuned)
    assert model.targets == {"drusen": Binary()}
    scores = model.predict([encoder.parent / name for name in rows["path"]])[:, 0].astype(np.float64)
    with RunFolder(tuned).validation_log(EARLY.name).open(newline="") as file:
        best = min(float(row["loss"]) for row in csv.DictReader(file))
    right = np.where(rows["drusen"] == 1, scores, 1 - scores)
    assert -np.log(right).mean() == pytest.approx(best, rel=1e-4)
    labels = rows["drusen"].to_numpy(np.float32)
    assert model.thresholds == {"drusen": pytest.approx(choose_threshold(scores, labels, "youden"), rel=1e-5)}


def test_a_target_that_cannot_be_learnt_is_told(cohort, tmp_path, capsys):
    finetune_command(cohort[0], FinetuneConfig(bootstrap=5), tmp_path / "out", resume=False)
    assert "labels    fluid: one class among 36 labelled images, left out" in capsys.readouterr().out


def test_resumed_nothing_changes(cohort, tuned, capsys):
    config = tuned / "checkpoints" / EARLY.name / "best" / "config.json"
    before = config.read_text(), (tuned / "metrics.json").read_text()
    finetune_command(cohort[0], EARLY, tuned, resume=True)
    assert "finished before" in capsys.readouterr().out
    assert (config.read_text(), (tuned / "metrics.json").read_text()) == before


@pytest.fixture(scope="module")
def folds(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "folds"
    assert main(["finetune", str(cohort[0]), "--folds", "2", "--bootstrap", "5", "--out", str(out)]) == 0
    return out


def test_every_fold_gets_the_thresholds_of_the_pooled_folds(folds):
    table = pd.read_csv(folds / "out_of_fold.csv")
    labels = table["drusen.label"].to_numpy(np.float32)
    expected = choose_threshold(table["drusen.probability"].to_numpy(), labels, "youden")
    for fold in (1, 2):
        found = mmcuda.load(folds / "checkpoints" / f"finetune-logistic-seed0-fold{fold}").thresholds
        assert found == {"drusen": pytest.approx(expected)}
    with pytest.raises(UserError, match="holds 2 checkpoints: name one of them"):
        mmcuda.load(folds)


def test_folds_are_scored_each_and_pooled_and_resumed(cohort, folds, capsys):
    rows = pd.read_csv(folds / "folds.csv")
    assert list(rows["fold"]) == ["1"] * 3 + ["2"] * 3 + ["pooled"] * 3
    before = (folds / "metrics.json").read_text()
    arguments = ["finetune", str(cohort[0]), "--out", str(folds), "--resume"]
    assert main(arguments) == 0
    assert (folds / "metrics.json").read_text() == before
    assert "test images, mean of the 2 classifiers" in capsys.readouterr().out
    assert main([*arguments, "--folds", "3"]) == 2
    assert "cannot resume with --folds 3: the run has 2 in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 13}, "--folds must be at most the number of labelled patients, 12, got 13"),
        ({"label_fraction": 0.01, "folds": 2}, "--folds must be at most the number of labelled patients, 1, got 2"),
    ],
)
def test_refused_labels_leave_no_folder(cohort, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        finetune_command(cohort[0], FinetuneConfig(**options), tmp_path / "out", resume=False)
    assert list(tmp_path.iterdir()) == []

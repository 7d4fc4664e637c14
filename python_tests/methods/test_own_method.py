"""A method from outside the package goes through a whole study by its name alone."""

import pandas as pd
import pytest
import rotations
from table_cohort import write_cohort

from mmcuda.cli import main
from mmcuda.models.storage import load_encoder
from mmcuda.train.checkpoint import load_pretraining

OPTIONS = ["--methods.rotations.smoothing", "0.2", "--pretrain.epochs", "1", "--pretrain.batch_size", "16"]
SCORED = ["--evaluate.label_fractions", "[1.0]", "--evaluate.bootstrap", "5", "--seeds", "1"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    cohort = write_cohort(folder)
    arms = ["--arms", "[random,rotations,rotations+finetune]", "--finetune.epochs", "1"]
    assert main(["study", *cohort, *arms, *OPTIONS, *SCORED, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_it_is_trained_with_its_options_and_scored(study):
    checkpoint = study / "checkpoints" / "rotations-seed0" / "last"
    assert load_pretraining(checkpoint).method == rotations.Rotations(smoothing=0.2)
    assert load_encoder(checkpoint)
    results = pd.read_csv(study / "results.csv").set_index(["arm", "target"])
    assert list(results.index.unique("arm")) == ["random", "rotations", "rotations+finetune"]
    assert results.loc[("rotations", "mean"), "auroc"] > 0


def test_it_is_drawn_and_reported(study):
    (page,) = (path.read_text() for path in study.glob("*.html"))
    assert f"<dd>{rotations.Rotations.summary}</dd>" in page
    assert rotations.Rotations.color in page
    assert "rotations at 100\xa0% of the labelled patients" in page


def test_its_options_are_on_the_command_line_with_it_only(capsys):
    assert main(["study", "--arms", "[rotations]", "--help"]) == 0
    assert "--methods.rotations.smoothing" in capsys.readouterr().out
    assert main(["study", "--arms", "[simclr]", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--methods.simclr.temperature" in printed
    assert "rotations.smoothing" not in printed
    assert main(["pretrain", "--method", "rotations", "--method.smoothing", "0", "--out", "x"]) == 2
    assert capsys.readouterr().err == "mmcuda: error: rotations.smoothing must be positive and finite, got 0\n"

"""The options --data... on the command line: a table of one's own, and other data than a checkpoint's."""

import csv

import numpy as np
import pytest
from data.tables import patients_table, write_table
from PIL import Image
from test_cli import fails

from mmcuda.cli import main

QUICK = ("--pretrain.epochs", "1", "--pretrain.batch_size", "8", "--data.image_size", "16")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def options(table):
    columns = ("--data.image", "image", "--data.group", "patient", "--data.targets", "[fluid]")
    return ("--data", "table", "--data.file", str(table), *columns, "--data.cache_dir", str(table.parent / "cache"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, options):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["pretrain", "--out", str(out), *options, "--data.clinical", "{cst: {within: 50}}", *QUICK]) == 0
    return out / "checkpoints" / "clinical-seed0"


def test_train_prints_what_it_inferred(capsys, tmp_path, options):
    arguments = ["--arms", "[clinical]", "--evaluate.label_fractions", "[1.0]", "--evaluate.bootstrap", "5"]
    rules = ("--data.clinical", "[cst, stage, grade]")
    assert main(["train", "--out", str(tmp_path / "run"), *options, *rules, *QUICK, *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["data", "cohort", "24"]
    assert lines[1].startswith("labels    clinical: cst, stage, grade   1 % missing")
    assert [line.strip() for line in lines[3:6]] == [
        "cst: within 20, inferred (continuous, 23 different values from 87.5 to 456.6)",
        "stage: equal, inferred (4 grades from 0 to 3)",
        "grade: equal, inferred (2 categories)",
    ]


def test_a_bad_table_stops_before_anything_is_written(capsys, tmp_path, options):
    frame = patients_table()
    frame["cst"] = frame["cst"].astype(str).str.replace(".", ",")
    path = write_table(tmp_path, frame, "bad.csv")
    arguments = [
        "train",
        "--out",
        str(tmp_path / "run"),
        *options,
        "--data.file",
        str(path),
        "--data.clinical",
        "[cst]",
    ]
    message = fails(capsys, *arguments)
    assert message.startswith("bad.csv row 2 column cst:")
    assert message.endswith("and 18 more: `mmcuda data check` lists all 23")
    assert not (tmp_path / "run").exists()


def test_targets_are_asked_for_where_they_are_needed(capsys, tmp_path, table):
    columns = ("--data.file", str(table), "--data.image", "image", "--data.group", "patient")
    message = fails(capsys, "train", "--out", str(tmp_path / "x"), "--data", "table", *columns)
    assert message == "cohort has no targets to predict: name their columns with --data.targets"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_checkpoint_is_applied_to_its_own_data_and_to_others(checkpoint, tmp_path, table):
    frame = patients_table(12, seed=1)
    other = write_table(tmp_path, frame, "other.csv")
    out = tmp_path / "own.csv"
    assert main(["embed", str(checkpoint), "--out", str(out)]) == 0
    assert len(rows_of(out)) == 24
    out = tmp_path / "other_features.csv"
    assert main(["embed", str(checkpoint), "--out", str(out), "--data.file", str(other)]) == 0
    assert [row["clinical.cst"] for row in rows_of(out)] == ["" if np.isnan(cst) else str(cst) for cst in frame["cst"]]


def test_another_target_is_evaluated(checkpoint, tmp_path, table):
    frame = patients_table()
    frame["large"] = np.arange(24) % 2
    other = write_table(tmp_path, frame, "more.csv")
    out = tmp_path / "rows.csv"
    arguments = [
        "--data.file",
        str(other),
        "--data.targets",
        "[large]",
        "--label_fractions",
        "[1.0]",
        "--bootstrap",
        "5",
    ]
    assert main(["evaluate", str(checkpoint), "--out", str(out), *arguments]) == 0
    assert [row["target"] for row in rows_of(out)] == ["large", "mean"]


def test_a_classifier_remembers_the_data_it_was_trained_on(capsys, checkpoint, tmp_path):
    frame = patients_table()
    frame["large"] = np.arange(24) % 2
    other = write_table(tmp_path, frame, "more.csv")
    out = tmp_path / "tuned"
    arguments = ["--data.file", str(other), "--data.targets", "[large]", "--bootstrap", "5"]
    assert main(["finetune", str(checkpoint), "--out", str(out), *arguments]) == 0
    assert main(["finetune", str(checkpoint), "--out", str(out), "--resume"]) == 0
    message = fails(capsys, "finetune", str(checkpoint), "--out", str(out), "--resume", "--data.targets", "[fluid]")
    assert message.startswith("cannot resume with --data.targets ['fluid']: the run has ['large']")
    assert main(["embed", str(out / "checkpoints" / "finetune-logistic-seed0"), "--out", str(tmp_path / "x.csv")]) == 0
    assert "target.large" in rows_of(tmp_path / "x.csv")[0]


def test_another_source_starts_from_its_own_defaults(capsys, checkpoint, tmp_path):
    """Also the same source named again: nothing of the checkpoint's table is left."""
    path = write_table(tmp_path, name="colour.csv", with_images=False)
    for name in patients_table()["image"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (200, 100, 0)).save(tmp_path / name)
    arguments = [
        "embed",
        str(checkpoint),
        "--out",
        str(tmp_path / "x.npz"),
        "--data",
        "table",
        "--data.file",
        str(path),
    ]
    assert fails(capsys, *arguments).startswith("--data.image is required for --data table")
    message = fails(capsys, *arguments, "--data.image", "image", "--data.group", "patient")
    assert message == (
        "the encoder takes 1 channels (grey), the images of colour have 3 (red, green, blue): "
        "choose with --data.channels"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.clinical", "{cst: {within: -1}}"], "--data.clinical: cst must be one of equal, category, {within:"),
        (["--data.clinical", "{cst: [25]}"], "--data.clinical: cst must be one of equal, category, {within: "),
        (["--data.clinical", "{cst: {bins: 2.5}}"], "--data.clinical: cst must be one of equal, category, {within: "),
        (["--data.clinical", "{cst: {within: 5, weight: 0}}"], "--data.clinical: cst must be one of equal, category, "),
        (["--data.clinical", "[bvca]"], "--data.clinical: cohort.csv has no column bvca: did you mean bcva?"),
        (["--data.channels", "2"], "--data.channels: expected one of 1, 3, got 2"),
        (["--data.targts", "[a]"], "unknown option --data.targts: did you mean --data.targets?"),
        (["--data.file", "nowhere.csv"], "nowhere.csv cannot be read: no such file or directory"),
    ],
)
def test_a_wrong_option_is_named(capsys, tmp_path, options, arguments, message):
    out = ("--out", str(tmp_path / "x"))
    assert message in fails(capsys, "train", *options, *arguments, *out)

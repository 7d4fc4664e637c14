import csv
import subprocess
import sys

import numpy as np
import pytest

from mmcuda.cli import main


def fails(capsys, *arguments, code=2):
    """Run in this process; return the one line on stderr."""
    assert main(list(arguments)) == code
    output = capsys.readouterr()
    assert output.err.startswith("mmcuda: error: ")
    assert output.err.count("\n") == 1
    return output.err.removeprefix("mmcuda: error: ").strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--out", "x", "--pretrian.epochs", "2"],
            "unknown option --pretrian.epochs: did you mean --pretrain",
        ),
        (["train", "--out", "x", "--pretrain.epochs", "ten"], "--pretrain.epochs: expected int, got ten"),
        (["train", "--out", "x", "--pretrain.epochs", "0"], "--pretrain.epochs must be at least 1, got 0"),
        (
            ["train", "--out", "x", "--data", "olive"],
            "--data.source: expected one of 'lidc', 'table', 'olives', 'mimic-cxr', got olive",
        ),
        (["train", "--out", "x", "--arms", "clinical"], "--arms: expected a list such as [a,b], got"),
        (["train", "--out", "x", "--config", "no.yaml"], "--config: File does not exist"),
        (["train", "--out", "x", "--encoder.name", "resnet19"], "--encoder.name must be an architecture of timm"),
        (["train"], "the option --out is required"),
        (["embed", "--out", "x.npz"], "CHECKPOINT is required"),
        (
            ["trian", "--out", "x"],
            "COMMAND must be one of train, study, pretrain, finetune, evaluate, embed, predict, export, data, "
            "info, selfcheck, got 'trian'",
        ),
        ([], "COMMAND must be one of"),
        (["train", "--out", "/proc/x"], "cannot write to /proc/x: no such file or directory. Choose another folder"),
        (["embed", "nothing", "--out", "x.npz"], "no checkpoint at nothing: expected a folder with model.safetensors"),
    ],
)
def test_a_user_error_is_one_line_and_leaves_nothing_behind(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert fails(capsys, *arguments).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_its_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert fails(capsys, "train") == "the package jsonargparse is missing: pip install 'mmcuda[train]'"


def test_another_failure_is_one_line_and_code_1_and_debug_shows_where(capsys, tmp_path):
    arguments = ["pretrain", "--out", str(tmp_path / "run"), "--pretrain.learning_rate", "1e30"]
    message = fails(capsys, *arguments, "--data.test_fraction", "0.9", code=1)
    assert message.startswith("RuntimeError: the loss of clinical-seed0 became")
    assert main([*arguments, "--resume", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_flags_override_the_file(capsys, tmp_path):
    (tmp_path / "run.yaml").write_text("seeds: 3\npretrain:\n  epochs: 4\n  warmup: 0.3\n")
    arguments = ["--config", str(tmp_path / "run.yaml"), "--pretrain.epochs", "5", "--out", "x", "--print_config"]
    assert main(["train", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "seeds: 3" in printed
    assert "epochs: 5" in printed
    assert "warmup: 0.3" in printed


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "random"
    assert main(["pretrain", "--method", "random", "--out", str(out), "--data.test_fraction", "0.8"]) == 0
    return out / "checkpoints" / "random-seed0"


def test_a_used_folder_is_refused_and_another_option_on_resume_is_named(capsys, checkpoint):
    out = str(checkpoint.parents[1])
    assert "is not empty. Continue that run with --resume" in fails(capsys, "pretrain", "--out", out)
    assert fails(capsys, "pretrain", "--out", out, "--resume", "--seed", "1").startswith("cannot resume with --seed 1")


def test_embed_writes_every_image_with_its_patient(checkpoint, tmp_path):
    for name in ("features.npz", "features.csv"):
        assert main(["embed", str(checkpoint), "--out", str(tmp_path / name)]) == 0
    with np.load(tmp_path / "features.npz") as arrays, (tmp_path / "features.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
        assert len(table) == len(arrays["features"]) == 6859
        assert table[5]["patients"] == arrays["patients"][5]
        assert float(table[5]["feature7"]) == pytest.approx(float(arrays["features"][5, 7]))
        assert set(arrays["split"]) == {"train", "test"}


def test_evaluate_writes_the_rows_it_prints_and_overwrites_nothing(capsys, checkpoint, tmp_path):
    out = tmp_path / "rows.csv"
    arguments = ["evaluate", str(checkpoint), "--out", str(out), "--label_fractions", "[0.05]", "--bootstrap", "10"]
    assert main(arguments) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    printed = capsys.readouterr().out
    assert [row["target"] for row in rows] == ["malignancy", "spiculation", "lobulation", "calcified", "mean"]
    for row in rows:
        assert row["target"] in printed
        assert f"{float(row['auroc']):.3f}".removeprefix("0") in printed
    with (tmp_path / "rows-levels.csv").open(newline="") as file:
        assert {row["level"] for row in csv.DictReader(file)} == {"bag", "patient"}
    assert "exists. Choose another file" in fails(capsys, *arguments)


def test_finetune_logistic_equals_the_evaluation_of_all_labels(checkpoint, tmp_path):
    ours, theirs = tmp_path / "finetuned", tmp_path / "rows.csv"
    assert main(["finetune", str(checkpoint), "--out", str(ours), "--bootstrap", "10"]) == 0
    arguments = ["--label_fractions", "[1.0]", "--bootstrap", "10"]
    assert main(["evaluate", str(checkpoint), "--out", str(theirs), *arguments]) == 0
    with (ours / "metrics.csv").open(newline="") as mine, theirs.open(newline="") as file:
        for row, other in zip(csv.DictReader(mine), csv.DictReader(file), strict=True):
            for metric in ("auroc", "sensitivity", "ece"):
                assert float(row[metric]) == pytest.approx(
                    float(other[metric]), abs=1e-2 if metric != "auroc" else 1e-3
                )
            assert row["n_test"] == other["n_test"]
    assert (ours / "checkpoints" / "finetune-logistic-seed0" / "last" / "model.safetensors").is_file()


def test_a_checkpoint_of_another_encoder_is_refused(capsys, checkpoint, tmp_path):
    config = checkpoint / "last" / "config.json"
    text = config.read_text()
    config.write_text(text.replace("darknet_tiny", "resnet18"))
    try:
        message = fails(capsys, "embed", str(checkpoint), "--out", str(tmp_path / "x.npz"))
    finally:
        config.write_text(text)
    assert "for the encoder resnet18 do not fit" in message


def test_as_a_process_the_exit_code_and_the_streams_are_right():
    command = [sys.executable, "-m", "mmcuda"]
    failed = subprocess.run([*command, "train", "--oot", "x"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr == "mmcuda: error: unknown option --oot: did you mean --out?\n"
    info = subprocess.run([*command, "info"], capture_output=True, text=True, check=False)
    assert info.returncode == 0
    assert info.stdout.startswith("mmcuda")


@pytest.mark.parametrize("command", [["info"], ["selfcheck", "--help"]])
def test_the_kernels_commands_need_torch_and_numpy_alone(command):
    blocked = ("yaml", "jsonargparse", "pandas", "sklearn", "timm", "torchvision", "accelerate", "matplotlib")
    absent = f"import sys; sys.modules.update(dict.fromkeys({blocked}))"
    code = f"{absent}; from mmcuda.cli import main; sys.exit(main({command}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

import csv
import dataclasses
import math

import pytest
import torch
from killing import Killed, KilledAtCall
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmcuda.errors import UserError
from mmcuda.methods import Clinical
from mmcuda.train.checkpoint import load_checkpoint
from mmcuda.train.config import PretrainConfig, PretrainJob
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import make_accelerator, warmup_cosine
from mmcuda.train.pretrain import pretrain

JOB = PretrainJob(Clinical(), 0, pretrain=PretrainConfig(epochs=3, batch_size=128))


def run(folder, readings, job=JOB):
    pretrain(make_accelerator(job.pretrain.precision), RunFolder(folder), job, readings)
    return load_checkpoint(RunFolder(folder).checkpoint(job.name))


def rows_of(folder, job=JOB):
    with RunFolder(folder).log(job.name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, readings):
    folder = tmp_path_factory.mktemp("run")
    return folder, run(folder, readings)


def test_the_loss_falls_and_every_step_is_logged(uninterrupted, readings):
    folder, _ = uninterrupted
    rows = rows_of(folder)
    steps = len(readings.train) // 128
    assert list(rows[0]) == ["step", "epoch", "loss", "learning_rate", "images_per_second", "data_wait", "augmentation"]
    assert [(int(r["step"]), int(r["epoch"])) for r in rows] == [(n + 1, n // steps + 1) for n in range(3 * steps)]
    assert all(
        0 <= float(row["data_wait"]) + float(row["augmentation"]) < 1 and float(row["images_per_second"]) > 0
        for row in rows
    )
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    board = EventAccumulator(str(RunFolder(folder).tensorboard(JOB.name)))
    board.Reload()
    assert [event.step for event in board.Scalars("loss")] == [int(row["step"]) for row in rows]


def test_stopped_inside_an_epoch_and_resumed_the_weights_are_the_same(uninterrupted, readings, tmp_path, capsys):
    folder, expected = uninterrupted
    steps = len(readings.train) // 128
    KilledAtCall.left = steps + 2  # two steps into the second epoch
    with pytest.raises(Killed):
        run(tmp_path, readings, dataclasses.replace(JOB, augment=KilledAtCall()))
    assert load_checkpoint(RunFolder(tmp_path).checkpoint(JOB.name)).state["epoch"] == 1
    resumed = run(tmp_path, readings)
    for name, tensor in expected.weights.items():
        assert torch.equal(resumed.weights[name], tensor), name
    assert [row["loss"] for row in rows_of(tmp_path)] == [row["loss"] for row in rows_of(folder)]

    capsys.readouterr()
    run(tmp_path, readings)
    assert "finished before" in capsys.readouterr().out


def test_another_job_in_the_same_place_is_refused(uninterrupted, readings):
    job = dataclasses.replace(JOB, method=Clinical(temperature=0.5))
    with pytest.raises(UserError, match=r"cannot resume with --method.temperature 0.5"):
        run(uninterrupted[0], readings, job)


def test_a_loss_that_is_not_finite_stops_the_run(readings, tmp_path):
    job = dataclasses.replace(JOB, pretrain=dataclasses.replace(JOB.pretrain, learning_rate=1e30))
    with pytest.raises(RuntimeError, match=r"the loss of clinical-seed0 became (nan|inf) in step \d+"):
        run(tmp_path, readings, job)


def test_fp16_without_a_gpu_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="precision must be no or bf16 without a GPU, got fp16"):
        make_accelerator("fp16")


def test_the_learning_rate_rises_to_its_highest_and_falls_to_zero():
    factor = warmup_cosine(10, 100)
    factors = [factor(step) for step in range(100)]
    assert factors[9] == 1 == max(factors)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert math.isclose(factor(55), 0.5)
    assert factor(100) == 0

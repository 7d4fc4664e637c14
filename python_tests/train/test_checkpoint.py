from pathlib import Path

import pytest
import torch

from mmcuda.errors import UserError
from mmcuda.methods import Random, SimCLR
from mmcuda.models.description import ModelDescription
from mmcuda.models.storage import WEIGHTS
from mmcuda.targets import Binary
from mmcuda.train.checkpoint import (
    CONFIG,
    Checkpoint,
    describe_model,
    load_checkpoint,
    recover,
    save_checkpoint,
)
from mmcuda.train.config import EncoderConfig, PretrainJob

TARGETS = {"drusen": Binary(), "fluid": Binary()}
DARKNET = ModelDescription("darknet_tiny", 32, ("red", "green", "blue"), "files-v1-3", targets=TARGETS)


def saved(folder, value):
    checkpoint = Checkpoint({"encoder.w": torch.full((2,), float(value))}, {"epoch": value})
    save_checkpoint(folder, checkpoint, PretrainJob(), DARKNET)
    return folder


def test_a_checkpoint_is_read_back_and_replaced(tmp_path):
    folder = tmp_path / "clinical-seed0" / "last"
    for value in (1, 2):
        checkpoint = load_checkpoint(saved(folder, value))
        assert checkpoint.state == {"epoch": value}
        assert torch.equal(checkpoint.weights["encoder.w"], torch.full((2,), float(value)))
    assert [path.name for path in folder.parent.iterdir()] == ["last"]


@pytest.mark.parametrize("moment", ["while writing the new", "between the two renames", "before the old is deleted"])
def test_killed_at_any_moment_a_whole_checkpoint_remains(tmp_path, moment):
    folder = saved(tmp_path / "last", 1)
    if moment == "while writing the new":
        (tmp_path / "last.new").mkdir()
        (tmp_path / "last.new" / WEIGHTS).write_bytes(b"half")
    elif moment == "between the two renames":
        folder.rename(tmp_path / "last.old")
        saved(tmp_path / "x", 2).rename(tmp_path / "last.new")
    else:
        saved(tmp_path / "last.old", 0)
    recover(folder)
    assert load_checkpoint(folder).state == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_missing_or_damaged_checkpoint_is_named(tmp_path):
    folder = saved(tmp_path / "last", 1)
    (folder / WEIGHTS).write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(UserError, match=r"config.yaml is missing"):
        load_checkpoint(folder)


def test_a_model_is_described_by_its_job_and_its_images(readings):
    cohort = readings
    description = describe_model(PretrainJob(), cohort, {"drusen": Binary()})
    assert description.architecture == "darknet_tiny"
    assert description.image_size == 32
    assert description.channels == cohort.channel_names
    assert description.reader == cohort.table.images.version
    assert description.targets == {"drusen": Binary()}
    assert description.mean == description.std == ()
    weights = EncoderConfig("test_resnet", weights=Path("x.safetensors"))
    assert describe_model(PretrainJob(SimCLR(), encoder=weights), cohort).mean == pytest.approx((0.5, 0.5, 0.5))
    assert describe_model(PretrainJob(Random(), encoder=weights), cohort).mean == ()

import pytest
import torch

from mmcuda.errors import UserError
from mmcuda.models.encoder import build_encoder
from mmcuda.train.checkpoint import (
    CONFIG,
    WEIGHTS,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_encoder,
    recover,
    save_checkpoint,
)
from mmcuda.train.config import PretrainJob


def saved(folder, value):
    save_checkpoint(folder, Checkpoint({"encoder.w": torch.full((2,), float(value))}, {"epoch": value}), PretrainJob())
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
    with pytest.raises(UserError, match=r"no checkpoint at .*nothing"):
        find_checkpoint(tmp_path / "nothing")
    folder = saved(tmp_path / "last", 1)
    assert find_checkpoint(tmp_path) == folder
    (folder / WEIGHTS).write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(UserError, match=r"config.yaml is missing"):
        load_checkpoint(folder)


def test_an_encoder_comes_back_and_another_one_is_refused(tmp_path):
    encoder = build_encoder("darknet_tiny", 3, 32)
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_checkpoint(tmp_path / "last", Checkpoint(weights, {}), PretrainJob())
    loaded, _ = load_encoder(tmp_path / "last", 3)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), encoder.eval()(images))
    config = tmp_path / "last" / CONFIG
    config.write_text(config.read_text().replace("darknet_tiny", "resnet18"))
    with pytest.raises(UserError, match=r"for the encoder resnet18 do not fit: .* must be .* got"):
        load_encoder(tmp_path / "last", 3)

import json

import numpy as np
import onnxruntime
import pytest
import torch
from random_model import SIZE, write_model

import mmcuda
from mmcuda.cli import main
from mmcuda.errors import UserError
from mmcuda.models.description import ModelDescription
from mmcuda.models.heads import Classifier
from mmcuda.predict.config import ExportConfig
from mmcuda.predict.export import export_command, export_onnx
from mmcuda.predict.model import Model
from mmcuda.targets import Binary, Multiclass, Ordinal


def images(count, channels=1):
    return np.random.default_rng(count).integers(0, 256, (count, channels, SIZE, SIZE), dtype=np.uint8)


def test_safetensors_are_loaded_again_and_hold_the_model_alone(tmp_path, capsys):
    checkpoint = write_model(tmp_path / "checkpoint", thresholds={"drusen": 0.3})
    out = tmp_path / "runs" / "exported"
    assert main(["export", str(checkpoint), "--out", str(out)]) == 0
    assert f"{out}   Model(darknet_tiny" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["exported"]
    again, model = mmcuda.load(out), mmcuda.load(checkpoint)
    assert again.description == model.description
    np.testing.assert_array_equal(again.predict(images(3)), model.predict(images(3)))
    described = json.loads((out / "config.json").read_text())
    assert described["image_size"] == SIZE
    assert list(described["targets"]) == ["drusen", "fluid"]
    assert described["thresholds"] == {"drusen": 0.3}


def test_an_encoder_alone_is_exported_too(tmp_path):
    checkpoint = write_model(tmp_path / "checkpoint", targets=())
    export_command(checkpoint, ExportConfig(), tmp_path / "out")
    np.testing.assert_array_equal(
        mmcuda.load(tmp_path / "out").embed(images(2)), mmcuda.load(checkpoint).embed(images(2))
    )


def test_onnx_computes_the_same_for_any_number_of_images(tmp_path):
    description = ModelDescription(
        *("test_vit", SIZE, ("red", "green", "blue"), "files-v1-3", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)),
        targets={"drusen": Binary(), "grade": Ordinal(("0", "1", "2")), "dx": Multiclass(("a", "b"))},
    )
    model = Model(description, Classifier(description.build_encoder(), description.targets))
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [(node.name, node.type) for node in session.get_inputs()] == [("images", "tensor(uint8)")]
    assert model.outputs == ["drusen", "grade=0", "grade=1", "grade=2", "dx=a", "dx=b"]
    for count in (1, 3, 8):
        pixels = images(count, 3)
        features, probabilities = session.run(["features", "probabilities"], {"images": pixels})
        np.testing.assert_allclose(features, model.embed(pixels), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(probabilities, model.predict(pixels), rtol=1e-4, atol=1e-6)


def test_onnx_is_one_file_beside_its_description(tmp_path):
    checkpoint = write_model(tmp_path / "checkpoint", targets=())
    export_command(checkpoint, ExportConfig("onnx"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert [node.name for node in session.get_outputs()] == ["features"]
    (features,) = session.run(None, {"images": images(2)})
    np.testing.assert_allclose(features, mmcuda.load(checkpoint).embed(images(2)), rtol=1e-3, atol=1e-5)


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    checkpoint = write_model(tmp_path / "checkpoint")
    with pytest.raises(UserError, match=r"checkpoint exists. Choose another folder with --out"):
        export_command(checkpoint, ExportConfig(), checkpoint)
    with pytest.raises(UserError, match=r"cannot write to /proc/out: .*. Choose another folder with --out"):
        export_command(checkpoint, ExportConfig(), tmp_path.__class__("/proc/out"))

    def fail(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RuntimeError):
        export_command(checkpoint, ExportConfig("onnx"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]

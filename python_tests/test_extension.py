"""With the extension and without it: the package imports, says what it has, and the reference serves."""

import subprocess
import sys
from importlib.resources import files

import pytest
import torch

import mmcuda
from mmcuda import functional
from mmcuda._native import extension
from mmcuda.info import describe

WITHOUT_EXTENSION = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "mmcuda._C":
            raise ModuleNotFoundError("No module named 'mmcuda._C'", name=name)

sys.meta_path.insert(0, Absent())
import torch
from mmcuda import SupConLoss
from mmcuda.info import describe

features = torch.eye(4).reshape(2, 2, 4)
print(SupConLoss(temperature=1.0, base_temperature=1.0)(features).item())
print(describe())
SupConLoss(impl="fused")(features)
"""


def test_without_a_compiled_extension():
    result = subprocess.run([sys.executable, "-c", WITHOUT_EXTENSION], capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("1.0986")  # log 3: three orthogonal others
    assert "cpu kernels   none: mmcuda._C was not built" in result.stdout
    assert "RuntimeError: impl='fused' is not possible: mmcuda._C was not built" in result.stderr


def test_info_names_versions_and_kernels():
    text = describe()
    assert torch.__version__ in text
    if extension.native is None:
        assert "none" in text
    else:
        assert extension.native.instruction_set() in text
        assert all(name in text for name in extension.native.build_info()["cpu"])


def test_fused_is_refused_where_there_are_no_kernels():
    with pytest.raises(RuntimeError, match="impl='fused' is not possible: no fused kernels for meta tensors"):
        functional.supcon_loss(torch.ones(2, 2, 4, device="meta"), impl="fused")


def test_the_reference_on_a_gpu_is_told_once(recwarn):
    for _ in range(2):
        functional.warn_of_reference("NVIDIA Something is too old")
    told = [str(one.message) for one in recwarn]
    assert told == [
        "the PyTorch reference, which stores N x N matrices, takes the place of the CUDA kernels: "
        "NVIDIA Something is too old"
    ]


def test_the_reference_is_told_only_where_kernels_were_hoped_for(monkeypatch):
    told = []
    monkeypatch.setattr(functional, "warn_of_reference", told.append)
    monkeypatch.setattr(extension, "why_not_fused", lambda device: "no reason at all")
    for device in ("cpu", "cuda"):
        for impl in ("reference", "auto"):
            assert not functional._use_fused(impl, torch.device(device))
    assert told == ["no reason at all"]


@pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or "")
def test_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="instruction set mmx is not compiled in"):
        extension.native.set_instruction_set("mmx")


def test_the_package_shows_its_public_names_and_is_typed():
    assert set(dir(mmcuda)) == {*mmcuda.__all__, "__version__", "functional", "losses", "relations"}
    assert all(hasattr(mmcuda, name) for name in dir(mmcuda))
    assert files("mmcuda").joinpath("py.typed").is_file()


@pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or "")
def test_constants_of_the_kernels_come_with_the_build():
    build = extension.native.build_info()
    assert (build["block"], build["max_saved_bytes"], build["max_cuda_attributes"]) == (96, 30_000_000, 16)

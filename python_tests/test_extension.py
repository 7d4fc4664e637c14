"""With the extension and without it: the package imports, says what it has, and the reference serves."""

import subprocess
import sys

import pytest
import torch

from mmcuda import _extension, functional
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
    if _extension.native is None:
        assert "none" in text
    else:
        assert _extension.native.instruction_set() in text
        assert all(name in text for name in _extension.native.build_info()["cpu"])


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
    monkeypatch.setattr(_extension, "why_not_fused", lambda device: "no reason at all")
    for device in ("cpu", "cuda"):
        for impl in ("reference", "auto"):
            assert not functional._use_fused(impl, torch.device(device))
    assert told == ["no reason at all"]


@pytest.mark.skipif(_extension.native is None, reason=_extension.missing_reason or "")
def test_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="instruction set mmx is not compiled in"):
        _extension.native.set_instruction_set("mmx")

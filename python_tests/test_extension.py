"""With the extension and without it: the package imports, says what it has, and the reference serves."""

import subprocess
import sys

import pytest
import torch

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


@pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or "")
def test_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="instruction set mmx is not compiled in"):
        extension.native.set_instruction_set("mmx")

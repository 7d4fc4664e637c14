"""The CUDA path on the CPU, beyond what every implementation is tested for: labels, limits, the library itself."""

import math
import re
import shutil
import subprocess

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from simt_build import CSRC

from mmcuda._native import extension
from mmcuda.functional import supcon_loss
from mmcuda.relations import Attribute, Equal

pytest.importorskip("mmcuda._simt", reason="mmcuda._simt was not built: MMCUDA_SIMT=ON builds it")
NVCC = shutil.which("nvcc")


def related(intervals, views):
    """Return which items are in each other's intervals, [K, L, L]."""
    rank, first, last = intervals[:, 0, None, :], intervals[:, 1, :, None], intervals[:, 2, :, None]
    assert rank.shape[-1] % views == 0
    return (first <= rank) & (rank <= last)


values = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.5, 2.0, 1e300, -1e300])


@given(st.lists(values, min_size=1, max_size=40), st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 3))
def test_label_ranks_relate_the_same_samples(floats, tolerance, views):
    labels = [
        torch.tensor(floats, dtype=torch.float64),
        torch.tensor([-1 if math.isnan(f) else len(str(f)) for f in floats]),
    ]
    on_device, on_cpu = (
        library.label_intervals(labels, [tolerance, 0.0], views)
        for library in (torch.ops.mmcuda_simt, torch.ops.mmcuda)
    )
    assert torch.equal(related(on_device, views), related(on_cpu, views))


@pytest.mark.usefixtures("simt")
def test_more_attributes_than_fit_are_refused():
    features = torch.nn.functional.normalize(torch.randn(6, 1, 4), dim=-1)
    sets = [Attribute(torch.arange(6) % 2, Equal(), weight=0.1)] * 17
    torch.testing.assert_close(
        supcon_loss(features, sets[:16], impl="fused"), supcon_loss(features, sets[:16], impl="reference")
    )
    with pytest.raises(RuntimeError, match="attributes must be at most 16 on CUDA, got 17"):
        supcon_loss(features, sets, impl="fused")


@pytest.mark.usefixtures("simt")
def test_tf32_is_used_only_when_asked_for():
    features = torch.nn.functional.normalize(torch.randn(80, 1, 64), dim=-1)
    labels = [Attribute(torch.arange(80) % 9, Equal())]
    exact = supcon_loss(features.double(), labels, impl="reference").item()
    errors = {}
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            errors[precision] = abs(supcon_loss(features, labels, impl="fused").item() - exact)
    finally:
        torch.set_float32_matmul_precision(before)
    assert errors["highest"] < 1e-5
    assert errors["highest"] < errors["high"] < 1e-2


def test_library_with_cuda_kernels_loads_without_a_driver():
    """It was loaded here; where there is no device, CPU tensors are served all the same."""
    assert extension.native.build_info()["cuda"]
    features = torch.nn.functional.normalize(torch.randn(6, 1, 4), dim=-1)
    assert supcon_loss(features, [Attribute(torch.arange(6) % 2, Equal())], impl="fused").isfinite()


# none of them allocates, copies or waits
ALLOWED = {
    "cudaDeviceGetAttribute",
    "cudaDriverGetVersion",
    "cudaFuncSetAttribute",
    "cudaGetDevice",
    "cudaGetErrorString",
    "cudaGetLastError",
    "cudaLaunchKernel",
}


def test_host_functions_call_nothing_that_a_graph_capture_forbids():
    """They launch and ask for limits: no allocation, copy or wait but by torch's allocator."""
    calls = {
        call
        for file in (CSRC / "cuda").iterdir()
        if file.suffix in (".h", ".cu", ".cuh", ".cpp")
        for call in re.findall(r"\b(cu(?:da)?[A-Z]\w*)\(", file.read_text())
    }
    assert calls == ALLOWED


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="no nvcc: the launches cannot be compiled")
@pytest.mark.parametrize("source", ["launch", "launch_float32", "labels", "device"])
def test_compiled_launches_call_nothing_that_a_graph_capture_forbids(tmp_path, source):
    """As above, of what the compiler made."""
    target = tmp_path / "object.o"
    options = ["-std=c++20", "-cudart", "shared", "-gencode", "arch=compute_80,code=compute_80"]
    subprocess.run([NVCC, *options, "-c", CSRC / f"cuda/{source}.cu", "-o", target], check=True)
    symbols = subprocess.run(["nm", "--undefined-only", target], capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"\bU (cuda\w+)", symbols))  # those that begin with __cuda register kernels and launch them
    assert found
    assert found <= ALLOWED

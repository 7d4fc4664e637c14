"""Forward + backward of the supervised contrastive loss beside its peers, D = 128, two views, 16 images a class.

Run with `make bench`. Times of different rows compare only within one run.
"""

import platform
import subprocess
import sys

import pytest
import torch
from peers import implementations
from torch.nn.functional import normalize

D = 128
SIZES = [512, 1024, 2048, 4096]
IMPLEMENTATIONS = implementations()


def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    features = normalize(torch.randn(n // 2, 2, D), dim=-1).requires_grad_()
    return features, torch.arange(n // 2) % (n // 32)


def conditions(n: int) -> dict[str, object]:
    return {
        "N": n,
        "D": D,
        "K": 1,
        "dtype": "float32",
        "pass": "forward + backward",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": platform.processor() or platform.machine(),
    }


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def bench_forward_backward(benchmark, name, n):
    features, labels = batch(n)
    loss = IMPLEMENTATIONS[name]

    def step():
        features.grad = None
        loss(features, labels).backward()

    torch.testing.assert_close(
        loss(features, labels), IMPLEMENTATIONS["dense eager"](features, labels), rtol=1e-4, atol=1e-4
    )
    benchmark.extra_info.update(conditions(n), implementation=name)
    benchmark.pedantic(step, rounds=15, warmup_rounds=3)


@pytest.mark.parametrize("n", SIZES)
def bench_matrix_product(benchmark, n):
    """torch's own sgemm [N, D] x [D, N]: the rate that 4 N^2 D flops of the loss are measured against."""
    rows = torch.randn(n, D)
    columns = torch.randn(D, n)
    benchmark.extra_info.update(conditions(n), implementation="sgemm", **{"pass": "2 N^2 D flops"})
    benchmark.pedantic(lambda: rows @ columns, rounds=15, warmup_rounds=3)


PEAK_MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, "benchmarks")
from bench_supcon import IMPLEMENTATIONS, batch

def status(field):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field))
    return int(line.split()[1]) / 1024

loss = IMPLEMENTATIONS[sys.argv[1]]
loss(*batch(64)).backward()
features, labels = batch(int(sys.argv[2]))
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = status("VmRSS")
loss(features, labels).backward()
print(status("VmHWM") - before)
"""


@pytest.mark.parametrize("name", ["mmcuda", "dense eager"])
@pytest.mark.parametrize("n", [4096, 16384])
def bench_peak_memory(benchmark, name, n):
    """Growth of the process's peak memory over one forward + backward, in MiB (in extra_info)."""
    command = [sys.executable, "-c", PEAK_MEMORY, name, str(n)]

    def measure():
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    peak = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info.update(conditions(n), implementation=name, peak_MiB=round(peak, 1))

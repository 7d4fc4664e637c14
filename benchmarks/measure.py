"""How the benchmarks measure: interleaved rounds, peak memory, and the conditions that go with every number."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmcuda
from mmcuda import _extension

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCRATCH = RESULTS / "scratch"  # trial runs, not kept in git
THREADS = 2
ROUND_SECONDS = 0.05  # a step that is shorter is called several times a round

Times = dict[str, np.ndarray]  # per step [rounds], seconds a call


def conditions() -> dict[str, object]:
    """What every number of this run depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {
        "device": model[1] if model else platform.machine(),
        "instruction_set": instruction_set(),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "torch": torch.__version__,
        "mmcuda": mmcuda.__version__,
    }


def instruction_set() -> str:
    """The instruction set of the kernels that serve on this machine."""
    return "none" if _extension.native is None else _extension.native.instruction_set()


def seconds_a_call(step: Callable[[], object], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - begin) / calls


def interleave(steps: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Time every step once a round, in alternating order, so that a slow spell of the machine hits all alike."""
    calls = {}
    for name, step in steps.items():
        step()  # compiles, allocates
        calls[name] = max(1, int(ROUND_SECONDS / seconds_a_call(step, 1)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            steps[name]()  # brings its data back into the cache and its threads back from sleep
            times[name].append(seconds_a_call(steps[name], calls[name]))
    return {name: np.array(t) for name, t in times.items()}


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return low, median, high


def peak_memory(name: str, n: int, d: int = 128) -> float:
    """Growth of a fresh process's peak memory over one forward + backward, in MB (10^6 bytes)."""
    command = [sys.executable, str(HERE / "peak_memory.py"), name, str(n), str(d)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def save(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"conditions": conditions(), **content}, indent=1) + "\n")


def fill_in(block: str, text: str) -> None:
    """Put ``text`` between the marks of ``block`` in this folder's README.md."""
    readme = HERE / "README.md"
    begin, end = f"<!-- {block} -->\n", f"<!-- end of {block} -->"
    head, rest = readme.read_text().split(begin)
    readme.write_text(f"{head}{begin}{text.strip()}\n{end}{rest.split(end)[1]}")


def described(conditions: dict[str, object]) -> str:
    """The conditions in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in conditions.items())

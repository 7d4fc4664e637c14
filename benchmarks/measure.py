"""How the benchmarks measure: interleaved rounds, peak memory, and the conditions that go with every number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import mmcuda
from mmcuda.info import cpu_name, instruction_set

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCRATCH = RESULTS / "scratch"  # trial runs, not kept in git
THREADS = 2


def conditions() -> dict[str, object]:
    """What every number of this run depends on."""
    return {
        "device": cpu_name(),
        "instruction_set": instruction_set(),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "torch": torch.__version__,
        "mmcuda": mmcuda.__version__,
    }


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

"""Tables of single kernels: measured beside modelled, every launch of one call, what Nsight Compute has found."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "static"))
import model
from instantiations import BFLOAT16, FLOAT32, TF32, Backward, Forward

OURS = "mmcuda"
DTYPES = {"bf16": BFLOAT16, "fp32": FLOAT32, "tf32": TF32}
# By name; an H200 is an H100 with other memory.
DEVICES = {"A100": model.A100, "H100": model.H100, "H200": replace(model.H100, name="H200", hbm=4.8e12)}
REGISTERS = "registers A100 / H100"  # a column of the model's table
FORWARD, BACKWARD = r"\bforward_kernel", r"\b(backward|add_gradients)_kernel"  # launches of a pass over all pairs
LEAST_US = 5  # a profiled kernel that is shorter has returned at once: another one does its work
NCU_METRICS = {  # heading: metric of Nsight Compute
    "us": "Duration",
    "multiprocessors, %": "Compute (SM) Throughput",
    "memory, %": "Memory Throughput",
    "L1, %": "L1/TEX Cache Throughput",
    "L2, %": "L2 Cache Throughput",
    "HBM, %": "DRAM Throughput",
    "registers": "Registers Per Thread",
    "occupancy, %": "Achieved Occupancy",
    "instructions per clock": "Executed Ipc Active",
}
MICROSECONDS = {"ns": 1e-3, "nsecond": 1e-3, "us": 1.0, "usecond": 1.0, "ms": 1e3, "msecond": 1e3}

Row = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; nothing without rows."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1), *lines]) if lines else ""


def number(value: float | None, form: str = ".3g") -> str:
    return "" if value is None else format(value, form)


def short(name: str) -> str:
    """A kernel's name without its namespace, template arguments and parameters."""
    return re.sub(r"[<(].*", "", name.removeprefix("void ").replace("(anonymous namespace)::", "")).split("::")[-1]


def registers_of(kernel: str, d: int, device: model.Device, readme: str) -> int | None:
    """Registers of a kernel over tiles, which the model's table has from the binary."""
    head: list[str] = []
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if REGISTERS in cells:
            head = cells
        elif head and cells[:2] == [kernel, str(d)]:
            return int(cells[head.index(REGISTERS)].split("/")[0 if device.name == "A100" else 1])
    return None


def modelled_us(direction: type[Forward | Backward], row: Row, device: model.Device, readme: str) -> float | None:
    dtype = DTYPES[row["dtype"]]
    registers = registers_of(f"{direction.__name__.lower()} {dtype.name}", row["d"], device, readme)
    if registers is None:
        return None
    kernel = model.kernel_for(direction, dtype, row["d"], device)
    return 1e6 * model.model(kernel, row["d"], row["n"], device, registers).seconds


def measured_us(row: Row, pattern: str) -> float | None:
    found = [us for name, us in row["launches"] if re.search(pattern, name)]
    return sum(found) if found else None


def beside_model(timings: dict[str, Any], readme: str) -> str:
    """The passes over all pairs: microseconds of their launches, and what the model says."""
    device = next((d for name, d in DEVICES.items() if name in timings["device"]), None)
    ours = [row for row in timings["rows"] if row["task"] == "supcon" and row["name"] == OURS and "launches" in row]
    lines = []
    for row in sorted(ours, key=lambda row: (row["dtype"], row["d"], row["n"])):
        line = [row["dtype"], f"{row['n']:,}", row["d"]]
        for direction, pattern in ((Forward, FORWARD), (Backward, BACKWARD)):
            measured = measured_us(row, pattern)
            modelled = modelled_us(direction, row, device, readme) if device else None
            ratio = measured / modelled if measured and modelled else None
            line += [number(measured, ",.1f"), number(modelled, ",.1f"), number(ratio, ".2f")]
        lines.append([*line, number(sum(us for _, us in row["launches"]), ",.1f")])
    passes = [cell for name in ("forward", "backward") for cell in (f"{name}, us", "modelled", "ratio")]
    return table(["features", "N", "D", *passes, "all launches, us"], lines)


def launches(row: Row | None) -> str:
    return table(["kernel", "us"], [(short(name), us) for name, us in (row or {}).get("launches", ())])


def profiles(text: str) -> str:
    """Kernels that Nsight Compute has profiled: a line of its CSV is one metric of one kernel."""
    kernels: dict[tuple[str, str], dict[str, str]] = {}
    shape, head = "", [""]
    for line in text.splitlines():
        if line.startswith("====="):  # the heading of a step
            shape = line.strip("= ").split(":")[0].removeprefix("ncu ")
        elif line.startswith('"ID"'):
            head = next(csv.reader([line]))
        elif line.startswith('"'):
            cells = dict(zip(head, next(csv.reader([line])), strict=False))
            metric, value = cells["Metric Name"], cells["Metric Value"]
            if metric == "Duration":
                value = f"{float(value.replace(',', '')) * MICROSECONDS[cells['Metric Unit']]:.1f}"
            if metric == "Memory Throughput" and cells["Metric Unit"] != "%":  # of another section, in bytes
                continue
            kernel = kernels.setdefault((shape, cells["ID"]), {"name": f"{shape}: {short(cells['Kernel Name'])}"})
            kernel.setdefault(metric, value)
    long = [kernel for kernel in kernels.values() if float(kernel.get("Duration", 0)) >= LEAST_US]
    rows = [[kernel["name"], *(kernel.get(metric, "") for metric in NCU_METRICS.values())] for kernel in long]
    return table(["kernel", *NCU_METRICS], rows)

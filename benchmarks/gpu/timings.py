"""Timing of our losses beside dense PyTorch and published packages, within a budget of seconds; JSON after each row.

    python timings.py OUT.json [--seconds 150] [--device cuda] [--ceilings FILE]

What matters most comes first. A row is one loss, forward + backward, on one shape: quartiles of the milliseconds per
call as Python makes it and of a replayed CUDA graph, peak memory, the errors of loss and gradients against float64, the
formula's FLOP/s (losses.py) as a fraction of the measured rate of mma.sync. Then, for our rows, every kernel of
one call: a profiler stays attached to its process, so that nothing is timed after its first use.

A row that loses the device, or does not come back, ends the process with exit code 3, or 5 if the row is not ours; a
new process with the option on its last line continues after that row.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import exact
import losses
import torch
from losses import DTYPES, OURS, TEMPERATURE, Loss, Task, TimedLoss
from recovery import CONTINUE, RESTART, lose, no_device, watched
from torch import Tensor

from mmcuda.selfcheck.speed import CPU_BYTES, DENSE_BYTES
from mmcuda.timing import ROUND_SECONDS, Step, peak_bytes, quartiles, seconds_a_call

ROW_SECONDS = 90  # in which a row must be done, compilation included
LEAST_SECONDS, LEAST_TO_COMPILE = 8, 30  # with which a row is begun
PROFILE_SHARE = 0.12  # of the seconds, for the kernels of all rows
LEAST_TO_PROFILE = 3  # seconds with which those of a row are begun
LOST = "lost the device, or did not come back"
TIMED_SECONDS = {"cuda": 0.4, "cpu": 0.1}  # of all rounds of a row
AGREES = {"bf16": (1e-4, 1e-2), "tf32": (2e-3, 8e-3), "fp32": (2e-5, 1e-4)}  # errors of loss and gradient, at most
MOST_LAUNCHES, NAME_LENGTH = 60, 120  # of a call, in the file
CEILINGS = {"bf16": "mma_sync_bf16_tflops", "tf32": "mma_sync_tf32_tflops", "fp32": "mma_sync_tf32_tflops"}

Row = dict[str, Any]


class Shape(NamedTuple):
    """What is computed, and who computes it."""

    task: str
    n: int
    d: int
    dtype: str
    names: tuple[str, ...]
    temperature: float = TEMPERATURE


def plan() -> Iterator[Shape]:
    """What is timed on a GPU, the most important first."""
    sizes = (8192, 1024, 4096, 32768, 2048, 16384, 512, 256)
    every = tuple(losses.clip("cuda").losses)
    for n in sizes:
        yield Shape("supcon", n, 128, "bf16", (OURS, "dense"))
    yield Shape("clip", 4096, 512, "bf16", every)
    for dtype in ("fp32", "tf32"):
        for n in sizes:
            yield Shape("supcon", n, 128, dtype, (OURS, "dense"))
    yield Shape("supcon", 8192, 128, "bf16", ("dense, compiled",))
    yield Shape("supcon", 131072, 128, "bf16", (OURS,))
    for temperature in (0.01, TEMPERATURE):
        yield Shape("clip", 8192, 512, "bf16", (OURS,), temperature)
    yield Shape("clip", 16384, 512, "bf16", every)
    yield Shape("clip", 32768, 768, "bf16", every)
    for dtype, n in (("fp32", 8192), ("bf16", 1024), ("bf16", 32768), ("tf32", 8192), ("fp32", 1024)):
        yield Shape("supcon", n, 128, dtype, ("dense, compiled",))
    for d in (256, 64, 512):
        yield Shape("supcon", 8192, d, "bf16", (OURS, "dense"))
    yield Shape("clip", 65536, 768, "bf16", (OURS, "memeff", "siglip-kernel"))
    for dtype in ("fp32", "tf32"):
        yield Shape("supcon", 131072, 128, dtype, (OURS,))
    yield Shape("supcon", 65536, 128, "bf16", (OURS,))


def dry_plan() -> Iterator[Shape]:
    """The same on the CPU, tiny."""
    yield Shape("supcon", 64, 16, "bf16", ("dense", OURS, "dense, compiled"))
    yield Shape("supcon", 64, 16, "fp32", (OURS,))
    yield Shape("clip", 32, 32, "fp32", tuple(losses.clip("cpu").losses))
    yield Shape("clip", 32, 32, "bf16", (OURS,), 0.01)


class Timings:
    """Times rows until the seconds are used up."""

    def __init__(self, out: Path, seconds: float, device: str, ceilings: dict[str, Any], again: int) -> None:
        self.out, self.device, self.again = out, device, f"--again {again + 1}"
        self.end = time.monotonic() + seconds
        self.until = self.end - (PROFILE_SHARE * seconds if device == "cuda" else 0)  # of what is timed
        self.tasks = {task.name: task for task in (losses.supcon(device), losses.clip(device))}
        self.rows: list[Row] = json.loads(out.read_text())["rows"] if again else []
        for row in self.rows:
            if row.pop("begun", False):
                row["problem"] = LOST
        name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        self.head = {"device": name, "torch": torch.__version__, "temperature": TEMPERATURE, "ceilings": ceilings}

    def save(self) -> None:
        part = self.out.with_suffix(".part")
        part.write_text(json.dumps({**self.head, "rows": self.rows}) + "\n")
        os.replace(part, self.out)

    def run(self, shapes: Iterator[Shape]) -> None:
        self.save()
        self.time_rows(shapes)
        if self.device == "cuda":
            self.profile_rows()

    def time_rows(self, shapes: Iterator[Shape]) -> None:
        """Time all shapes, as long as there is time, except rows of an earlier process."""
        for shape in shapes:
            torch.set_float32_matmul_precision("high" if shape.dtype == "tf32" else "highest")
            task, inputs, reference = self.tasks[shape.task], None, None
            for name in shape.names:
                row: Row = {"task": shape.task, "name": name, "n": shape.n, "d": shape.d, "dtype": shape.dtype}
                row["temperature"] = shape.temperature
                if any(row.items() <= done.items() for done in self.rows):
                    continue
                timed, left = task.losses[name], self.until - time.monotonic()
                if left < LEAST_SECONDS:
                    print("out of time", flush=True)
                    return
                if timed.compiles and left < LEAST_TO_COMPILE and self.device == "cuda":
                    continue
                self.rows.append(row | {"begun": True})
                self.save()
                try:
                    with watched(ROW_SECONDS, json.dumps(row), self.again, lost_code(row)):
                        if inputs is None:
                            inputs = task.inputs(shape.n, shape.d, DTYPES[shape.dtype], self.device, shape.temperature)
                            reference = task.exact(*inputs, shape.temperature)
                        self.measure(row, task, timed, inputs, reference)
                except Exception as problem:  # a peer that does not run here costs its own row
                    row["problem"] = in_words(problem)
                self.rows[-1] = row
                self.save()
                print(json.dumps(row), flush=True)
                self.clean_up(row)

    def profile_rows(self) -> None:
        """Add the kernels of one call to each of our rows, as long as there is time."""
        for row in self.rows:
            if row["name"] != OURS or "call_ms" not in row or "launches" in row or "no_launches" in row:
                continue
            if time.monotonic() > self.end - LEAST_TO_PROFILE:
                return
            row["no_launches"] = LOST
            self.save()
            try:
                with watched(ROW_SECONDS, json.dumps(row), self.again):
                    row["launches"] = self.profile(row)
                del row["no_launches"]
            except Exception as problem:  # the profiler is not what is checked
                row["no_launches"] = in_words(problem)
            self.save()
            self.clean_up(row)

    def profile(self, row: Row) -> list[tuple[str, float]]:
        """Kernels of one call of a row."""
        torch.set_float32_matmul_precision("high" if row["dtype"] == "tf32" else "highest")
        task = self.tasks[row["task"]]
        inputs = task.inputs(row["n"], row["d"], DTYPES[row["dtype"]], self.device, row["temperature"])
        step = step_of(task.losses[row["name"]].make(row["temperature"]), inputs)
        step()  # warm-up
        return launches(step)

    def clean_up(self, row: Row) -> None:
        """Free memory; see whether the device still works."""
        gc.collect()
        if self.device == "cuda":
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except Exception as problem:
                lose(f"LOST {row['name']}: {problem}", self.again, lost_code(row))

    def measure(self, row: Row, task: Task, timed: TimedLoss, inputs: tuple[Tensor, Tensor],
                reference: exact.Exact) -> None:  # fmt: skip
        """Fill the row of one loss."""
        n, d, dtype = row["n"], row["d"], row["dtype"]
        room = torch.cuda.mem_get_info()[0] if self.device == "cuda" else CPU_BYTES
        if timed.dense and DENSE_BYTES * n * n > room:
            raise MemoryError(f"may need {DENSE_BYTES * n * n / 1e9:.0f} GB, there are {room / 1e9:.0f}")
        loss = timed.make(row["temperature"])
        step = step_of(loss, inputs)
        begin = time.monotonic()
        value = loss(*inputs)
        gradients = torch.autograd.grad(value, with_gradient(inputs))
        if self.device == "cuda":
            torch.cuda.synchronize()
        row["first_call_s"] = time.monotonic() - begin
        if timed.same_loss:
            errors = exact.errors(value.detach(), list(gradients), reference)
            row["agrees"] = all(error <= most for error, most in zip(errors, AGREES[dtype], strict=True))
            # null: not finite, which JSON does not know
            row["loss_error"], row["gradient_error"] = (error if math.isfinite(error) else None for error in errors)
        del value, gradients
        row["call_ms"] = self.milliseconds(step)
        if self.device == "cuda":
            row["peak_mb"] = peak_bytes(step) / 1e6
            self.measure_graph(row, step)
        median = row.get("graph_ms", row["call_ms"])[1]
        products = 3 if dtype == "fp32" and timed.name == OURS else 1
        row["tflops"] = task.flops(n, d, products) / median / 1e9
        if ceiling := self.head["ceilings"].get(CEILINGS[dtype]):
            row["of_ceiling"] = row["tflops"] / ceiling

    def measure_graph(self, row: Row, step: Step) -> None:
        """Time the step as a CUDA graph.

        A loss that waits for the device is found out before it is captured: a capture that fails leaves the process
        without a usable generator. If one fails all the same, a new process continues after this row.
        """
        try:
            torch.cuda.set_sync_debug_mode("error")
            try:
                step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        except Exception as problem:
            row["no_graph"] = in_words(problem)
            return
        try:
            captured = graph(step)
        except Exception as problem:
            row["no_graph"] = in_words(problem)
            self.rows[-1] = row
            self.save()
            lose(f"a capture failed, {row['name']}: {row['no_graph']}", self.again, lost_code(row))
        row["graph_ms"] = self.milliseconds(captured.replay)

    def milliseconds(self, step: Step) -> tuple[float, float, float]:
        """Quartiles of the milliseconds of a call, over rounds of calls, once warm."""
        seconds = TIMED_SECONDS[self.device]
        step()
        one = seconds_a_call(step, 1, self.device)
        calls = max(1, int(ROUND_SECONDS / one))
        rounds = min(max(int(seconds / (calls * one)), 3), 15)
        if one < ROUND_SECONDS:
            seconds_a_call(step, calls, self.device)
        times = torch.tensor([seconds_a_call(step, calls, self.device) for _ in range(rounds)], dtype=torch.float64)
        return quartiles(1e3 * times.numpy())


def lost_code(row: Row) -> int:
    """Exit code of a process that ends in this row: the step has failed if the row is ours."""
    return CONTINUE if row["name"] == OURS else RESTART


def with_gradient(inputs: tuple[Tensor, Tensor]) -> list[Tensor]:
    return [side for side in inputs if side.requires_grad]


def step_of(loss: Loss, inputs: tuple[Tensor, Tensor]) -> Step:
    """One forward + backward."""
    return lambda: torch.autograd.grad(loss(*inputs), with_gradient(inputs))


def in_words(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"


def graph(step: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The step as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        step()
    return recorded


def launches(step: Callable[[], object]) -> list[tuple[str, float]]:
    """Name and microseconds of every kernel and copy of one call, in their order."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda event: event.time_range.start)
    return [(event.name[:NAME_LENGTH], round(event.time_range.elapsed_us(), 2)) for event in events[:MOST_LAUNCHES]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--ceilings", type=Path, help="what ceilings.cu has printed")
    parser.add_argument(
        "--again",
        type=int,
        default=0,
        help="continue after the rows of OUT; each process has another number, so that its arguments differ",
    )
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        return no_device()
    ceilings = {}
    with contextlib.suppress(OSError, ValueError, TypeError):  # not measured, or not to its end
        ceilings = json.loads(args.ceilings.read_text()) if args.ceilings else {}
    timed = Timings(args.out, args.seconds, args.device, ceilings, args.again)
    timed.run(plan() if args.device == "cuda" else dry_plan())
    ours = [row for row in timed.rows if row["name"] == OURS]
    return int(not ours or any("problem" in row or "no_graph" in row or not row["agrees"] for row in ours))


if __name__ == "__main__":
    sys.exit(main())

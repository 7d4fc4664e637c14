"""How times are taken: steps in interleaved rounds, by the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

ROUND_SECONDS = 0.05  # a step that is shorter is called several times a round

Step = Callable[[], object]
Times = dict[str, npt.NDArray[np.float64]]  # per step [rounds], seconds a call


def seconds_a_call(step: Step, calls: int, device: str = "cpu") -> float:
    """Return the seconds that ``step`` takes, on CUDA from event to event."""
    if device == "cpu":
        begin = time.perf_counter()
        for _ in range(calls):
            step()
        return (time.perf_counter() - begin) / calls
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    for _ in range(calls):
        step()
    last.record()
    last.synchronize()
    milliseconds: float = first.elapsed_time(last)
    return milliseconds / 1e3 / calls


def interleave(steps: dict[str, Step], rounds: int, device: str = "cpu") -> Times:
    """Time every step once a round, in alternating order, so that a slow spell of the machine hits all alike."""
    calls = {}
    for name, step in steps.items():
        step()  # compiles, allocates
        calls[name] = max(1, int(ROUND_SECONDS / seconds_a_call(step, 1, device)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            steps[name]()  # brings its data back into the cache and its threads back from sleep
            times[name].append(seconds_a_call(steps[name], calls[name], device))
    return {name: np.array(t) for name, t in times.items()}


def quartiles(values: npt.NDArray[Any]) -> tuple[float, float, float]:
    """Return lower quartile, median, upper quartile."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return low, median, high


def peak_bytes(step: Step) -> int:
    """Return by how much one call of ``step`` raises the peak of torch's CUDA memory."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before

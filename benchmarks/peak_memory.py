"""Print by how many MB one forward + backward raises this process's peak memory: peak_memory.py NAME N D."""

import ctypes
import sys
from pathlib import Path

import torch
from measure import THREADS
from peers import IMPLEMENTATIONS, batch


def status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main(name: str, n: int, d: int) -> None:
    torch.set_num_threads(THREADS)
    implementation = IMPLEMENTATIONS[name]
    implementation.step(64)()  # what the first call ever allocates
    features, labels = batch(n, d, implementation.dtype, implementation.sets)
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that malloc keeps would hide some of the growth
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    implementation.loss(features, labels).backward()
    print((status("VmHWM") - before) / 1e6)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Time the loss on a GPU over N, D, dtype and number of attributes, forward and backward, beside its peers.

Peers that do not fit into the memory, or do not run, are left out with the reason; torch and numpy are all that must be
installed. Results go to results/gpu-<device>.json and .md after every shape: an interrupted sweep keeps what it has.
The whole sweep takes hours, most of them compilation of the peers; the most informative shapes come first, and
`--seconds 300` ends it after about as long. `--quick` is a trial of a few shapes; its results go to results/scratch.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch._dynamo
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # as for the benchmarks beside this folder
from measure import RESULTS, SCRATCH, described, save
from peers import (
    COMPILED,
    LEAN,
    METRIC_LEARNING,
    OURS,
    PUBLISHED,
    TEMPERATURE,
    batch,
    lean_form,
    metric_learning,
    published_form,
)

from mmcuda import ClinicalSupConLoss, Equal, info
from mmcuda._native.extension import why_no_cuda_device, why_not_fused
from mmcuda.timing import Step, interleave, peak_bytes, quartiles

Loss = Callable[[Tensor, Tensor], Tensor]  # of features [B, 2, D] and labels [K, B]
ROUNDS = 9
DTYPES = {  # features, and torch.set_float32_matmul_precision, and how far a peer's loss may be from ours
    "bf16": (torch.bfloat16, "highest", 2e-2),
    "fp32": (torch.float32, "highest", 1e-4),
    "tf32": (torch.float32, "high", 1e-2),
    "fp16": (torch.float16, "highest", 1e-2),
}
HEAD = ["N", "D", "dtype", "K", "pass", "loss", "median ms", "quartiles", "/ mmcuda", "peak MB"]


class Shape(NamedTuple):
    n: int
    d: int
    dtype: str
    k: int  # attributes


SIZES = (4096, 16384, 1024, 65536, 2048, 8192, 512, 32768, 131072)


def by_importance(*axes: Iterable[Any]) -> list[Shape]:
    """All combinations; each axis goes from its most to its least informative value, and so do the combinations."""
    ranked = sorted(itertools.product(*map(enumerate, axes)), key=lambda shape: sum(rank for rank, _ in shape))
    return [Shape(*(value for _, value in shape)) for shape in ranked]


FULL = by_importance(SIZES, (128, 256, 512, 64), DTYPES, (1, 4))
QUICK = by_importance((2048, 512), (128,), DTYPES, (1, 4))


def ours(sets: int) -> Loss:
    loss = ClinicalSupConLoss({str(k): Equal() for k in range(sets)}, temperature=TEMPERATURE, impl="fused")
    return lambda features, labels: loss(features, dict(zip(loss.relations, labels, strict=True)))


def summed(loss: Loss) -> Loss:
    """A loss of one attribute, once for each set, as people do."""
    return lambda features, labels: sum(loss(features, one) for one in labels)


PEERS = {
    PUBLISHED: summed(published_form),
    LEAN: summed(lean_form),
    COMPILED: torch.compile(summed(lean_form), fullgraph=True, dynamic=False),
    METRIC_LEARNING: summed(metric_learning),
}


def mixed(loss: Loss, device: str, dtype: torch.dtype) -> Loss:
    """A loss as people run it on half precision features: under autocast."""
    if dtype == torch.float32:
        return loss

    def under_autocast(features: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device, dtype):
            return loss(features, labels)

    return under_autocast


def steps_of(loss: Loss, features: Tensor, labels: Tensor) -> dict[str, Step]:
    def forward() -> Tensor:
        with torch.no_grad():
            return loss(features, labels)

    return {
        "forward": forward,
        "forward + backward": lambda: torch.autograd.grad(loss(features, labels), features),
    }


def measure(shape: Shape, device: str, peers: dict[str, Loss]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of a shape, and which peers are left out and why; forget peers that are not installed."""
    dtype, precision, tolerance = DTYPES[shape.dtype]
    torch.set_float32_matmul_precision(precision)
    torch._dynamo.reset()
    features, labels = batch(shape.n, shape.d, dtype, shape.k, device=device)
    labels = labels.view(shape.k, -1)
    expected = None
    steps: dict[str, dict[str, Step]] = {}
    left_out, peaks = [], {}
    losses = {OURS: ours(shape.k)} | {name: mixed(peer, device, dtype) for name, peer in peers.items()}
    for name, loss in losses.items():
        try:
            each = steps_of(loss, features, labels)
            value = each["forward"]().float()
            expected = value if expected is None else expected
            torch.testing.assert_close(value, expected, rtol=tolerance, atol=0)
            for step in each.values():
                step()
            if device == "cuda":
                peaks[name] = {kind: peak_bytes(step) for kind, step in each.items()}
            steps[name] = each
        except Exception as problem:
            if name == OURS:
                raise
            where: Shape | str = shape
            if isinstance(problem, ModuleNotFoundError):
                where = "every shape"
                del peers[name]
            left_out.append(f"{where}, {name}: {type(problem).__name__}: {' '.join(str(problem).split())[:160]}")
    rows = []
    for kind in steps[OURS]:
        times = interleave({name: each[kind] for name, each in steps.items()}, ROUNDS, device)
        for name, seconds in times.items():
            row = shape._asdict() | {"pass": kind, "loss": name, "seconds": quartiles(seconds)}
            row |= {"ratio": quartiles(seconds / times[OURS])[1], "peak_bytes": peaks.get(name, {}).get(kind)}
            rows.append(row)
    if device == "cuda":
        torch.cuda.empty_cache()
    return rows, left_out


def line(row: dict[str, Any]) -> str:
    low, median, high = (f"{1e3 * seconds:.3f}" for seconds in row["seconds"])
    peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.1f}"
    cells = [f"{row['n']:,}", row["d"], row["dtype"], row["k"], row["pass"], row["loss"]]
    return "| " + " | ".join(map(str, [*cells, median, f"{low} to {high}", f"{row['ratio']:.2f}", peak])) + " |"


def write(path: Path, conditions: dict[str, str], rows: list[dict[str, Any]], left_out: list[str]) -> None:
    save(path.with_suffix(".json"), {"conditions": conditions, "rows": rows, "left_out": left_out})
    table = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD), *map(line, rows)]
    notes = [f"- left out: {note}" for note in left_out]
    text = "\n".join([*table, "", f"Conditions: {described(conditions)}.", *([""] if notes else []), *notes])
    path.with_suffix(".md").write_text(text + "\n")


def sweep(shapes: list[Shape], device: str, folder: Path, peers: dict[str, Loss], seconds: float = math.inf) -> None:
    """Measure the shapes in their order until the next one, if as slow as the slowest, would end after ``seconds``."""
    begin, slowest = time.monotonic(), 0.0
    conditions = info.conditions(torch.device(device))
    name = "gpu-" + re.sub(r"\W+", "-", conditions["device"].split(" (")[0].lower()).strip("-")
    peers = dict(peers)
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for done, shape in enumerate(shapes, 1):
        begin_of_shape = time.monotonic()
        found, missing = measure(shape, device, peers)
        rows = sorted(rows + found, key=lambda row: [row[axis] for axis in Shape._fields])
        left_out += missing
        for row in found:
            print(line(row), flush=True)
        rest = len(shapes) - done
        notes = [f"{rest} of {len(shapes)} shapes, for want of time"] if rest else []
        write(folder / name, conditions, rows, left_out + notes)
        slowest = max(slowest, time.monotonic() - begin_of_shape)
        if time.monotonic() - begin + slowest > seconds:
            break


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few shapes, results into results/scratch")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="end after about this long; default: all shapes"
    )
    options = parser.parse_args()
    if reason := why_no_cuda_device() or why_not_fused("cuda"):
        print(f"the sweep needs a GPU: {reason}", file=sys.stderr)
        return 2
    shapes, folder = (QUICK, SCRATCH) if options.quick else (FULL, RESULTS)
    sweep(shapes, "cuda", folder, PEERS, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

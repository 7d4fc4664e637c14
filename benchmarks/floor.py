"""How far each stage of the loss is from what this machine's arithmetic allows; README.md explains the columns.

The time of a pass is a line in D: what grows with D are the products, what is left at D = 0 is the work a pair, exp and
labels. So times at several D, interleaved, tell the two apart without a clock inside the kernels. `--quick` is a trial
at small N.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from measure import (
    RESULTS,
    SCRATCH,
    THREADS,
    conditions,
    described,
    fill_in,
    save,
)
from peers import D, batch, supcon

from mmcuda._native.extension import native
from mmcuda.info import instruction_set
from mmcuda.timing import interleave

DIMENSIONS = (32, 64, 96, 128)  # of the line; multiples of 32, so that no kernel pads
PRODUCTS = ((8192, 128, 8192), (8192, 8192, 128), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096))
COPIED = 2**26  # floats, more than any cache holds

# Vector operations a pair beside the products, as csrc/cpu needs them for one attribute; a pair serves row and column.
EXP = 13  # shift and scale 2, rounding 3, polynomial of degree 5, exponent 2, range 1
LABELS = 3  # two comparisons and their and
SUMS = 6  # forward: exp into row and column 2, masked logit 2, into row and column 2
H = 5  # backward: softmax factors of row and column 2, their masked weights 2, stored 1


@dataclass(frozen=True)
class Rates:
    """What this machine can do in a second."""

    products: float  # flops of matrix products in the dtype of the features
    shape: str  # of the product that is so fast
    float32: float  # flops of multiply-adds in float32, in which all else is computed
    memory: float  # bytes


@dataclass(frozen=True)
class Stage:
    """Counts of one stage, and its measured seconds."""

    name: str
    flops: float = 0  # of products; multiply and add count as 2
    exps: float = 0
    operations: float = 0  # on single numbers, all that the exps and labels need
    bytes: float = 0  # what must cross the memory at least once
    seconds: float | None = None

    def floor(self, rates: Rates) -> float:
        """Seconds if every operation took the slot of one float32 multiply-add and nothing waited."""
        return max(self.flops / rates.products + 2 * self.operations / rates.float32, self.bytes / rates.memory)


def total(name: str, stages: list[Stage]) -> Stage:
    sums = {field: sum(getattr(s, field) or 0 for s in stages) for field in asdict(stages[0]) if field != "name"}
    return Stage(name, **sums)


def measured_stages(n: int, dtype: torch.dtype, rounds: int) -> tuple[list[Stage], list[Stage]]:
    """The stages of forward and of backward for features [N, D], K = 1."""
    seconds = measured_passes(n, dtype, rounds)
    pairs, features, product = n * n / 2, n * D * dtype.itemsize, 1.0 * n * n * D
    kept = min(native.build_info()["max_saved_bytes"], pairs * 4)
    again = 1 - kept / (pairs * 4)  # share of the logits that the backward computes
    logits = seconds["forward, D"]
    copies = 2 if dtype == torch.bfloat16 else 1  # panels; in bfloat16 pairs of rows, too
    packing = Stage("packing", bytes=(1 + copies) * features)
    forward = [
        packing,
        Stage("logits", product, bytes=2 * features + kept, seconds=logits),
        Stage("exp, labels, sums", 0, pairs, (EXP + LABELS + SUMS) * pairs, seconds=seconds["forward, pairs"]),
    ]
    backward = [
        packing,
        Stage("logits not kept", again * product, bytes=2 * features + kept, seconds=again * logits),
        Stage("exp, labels, H", 0, pairs, (EXP + LABELS + H) * pairs, seconds=seconds["backward, pairs"]),
        Stage(
            "products H X and Hᵀ X", 2 * product, bytes=2 * features, seconds=seconds["backward, D"] - again * logits
        ),
    ]
    return forward, backward


def measured_passes(n: int, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Seconds of each pass at D in two parts: "D" grows with D, "pairs" does not."""
    steps: dict[str, Callable[[], object]] = {}
    for d in DIMENSIONS:
        features, labels = batch(n, d, dtype)
        steps[f"forward {d}"] = partial(supcon, features, labels)
        steps[f"backward {d}"] = partial(torch.autograd.grad, supcon(features, labels), features, retain_graph=True)
    times = interleave(steps, rounds)
    parts = {}
    for name in ("forward", "backward"):
        lines = np.polyfit(DIMENSIONS, [times[f"{name} {d}"] for d in DIMENSIONS], 1)  # [2, rounds]
        slope, rest = np.median(lines, axis=1).tolist()
        parts |= {f"{name}, D": slope * D, f"{name}, pairs": rest}
    return parts


def best_product(dtype: torch.dtype, rounds: int) -> tuple[float, str]:
    """Flops a second of torch's matrix product at its best shape, and that shape."""

    def step(rows: int, inner: int, columns: int) -> Callable[[], object]:
        a, b, out = (torch.randn(shape).to(dtype) for shape in ((rows, inner), (inner, columns), (rows, columns)))
        return partial(torch.mm, a, b, out=out)

    times = interleave({str(shape): step(*shape) for shape in PRODUCTS}, rounds)
    return max((2 * math.prod(shape) / float(np.median(times[str(shape)])), str(shape)) for shape in PRODUCTS)


def copy_rate(rounds: int) -> float:
    """Bytes a second of a copy, read and written."""
    source, target = torch.randn(COPIED), torch.empty(COPIED)
    return 8 * COPIED / float(np.median(interleave({"copy": partial(target.copy_, source)}, rounds)["copy"]))


def section(n: int, dtype: torch.dtype, rates: Rates, rounds: int) -> tuple[str, dict[str, object]]:
    """The table of one dtype, and what the JSON keeps of it."""
    forward, backward = measured_stages(n, dtype, rounds)
    groups = {"forward": forward, "backward": backward, "both": [total("", forward), total("", backward)]}
    name = str(dtype).removeprefix("torch.")
    lines = [
        f"{name}, N = {n:,}, D = {D}, K = 1: peak {rates.products / 1e9:.0f} Gflop/s (torch.mm, {rates.shape}), "
        f"memory {rates.memory / 1e9:.1f} GB/s",
        "",
        "| stage | Gflop | 10⁶ exps | MB | floor, ms | measured, ms | floor / measured |",
        "|---" * 7 + "|",
    ]
    kept = []
    for group, stages in groups.items():
        sum_of_group = total(f"**{group}**", stages)
        for stage in [sum_of_group] if group == "both" else [*stages, sum_of_group]:
            floor = stage.floor(rates)
            kept.append({"pass": group, **asdict(stage), "floor_s": floor})
            counts = f"{stage.flops / 1e9:.1f} | {stage.exps / 1e6:.1f} | {stage.bytes / 1e6:.1f} | {floor * 1e3:.2f}"
            measured = "in the logits | " if stage.seconds is None else f"{stage.seconds * 1e3:.2f} | "
            share = "" if stage.seconds is None else f"{floor / stage.seconds:.2f}"
            lines.append(f"| {stage.name} | {counts} | {measured}{share} |")
    return "\n".join(lines), {"dtype": name, "N": n, "D": D, "K": 1, "rates": asdict(rates), "stages": kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="N = 1024, 3 rounds, results into results/scratch")
    quick = parser.parse_args().quick
    torch.set_num_threads(THREADS)
    n, rounds = (1024, 3) if quick else (8192, 11)

    dtypes = [torch.float32] + [torch.bfloat16] * (instruction_set() == "avx512bf16")
    peaks = {dtype: best_product(dtype, rounds) for dtype in dtypes}
    memory = copy_rate(rounds)
    sections = [section(n, t, Rates(*peaks[t], peaks[torch.float32][0], memory), rounds) for t in dtypes]
    texts, contents = zip(*sections, strict=True)
    text = "\n\n".join([*texts, f"Conditions: {described(conditions())}."])
    print(text)
    save((SCRATCH if quick else RESULTS) / "floor.json", {"tables": contents})
    if not quick:
        fill_in("floor", text)


if __name__ == "__main__":
    main()

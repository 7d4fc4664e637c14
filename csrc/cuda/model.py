"""How long the kernels of one interval set, self-contrast, would take if nothing but throughput mattered: a model.

Written into README.md by `python static_check.py LIBRARY --model`. A tile costs the clocks of its busiest unit, all
units overlapping perfectly; blocks go to multiprocessors in order, each as soon as a place is free. Latency, caches
and clock changes are left out. Registers are those of the library; everything else follows from the sizes of tiles.
"""

import heapq
import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path

from static_check import (
    ARCHITECTURES,
    BFLOAT16,
    FLOAT32,
    PANEL_BYTES,
    TF32,
    Backward,
    Binary,
    Forward,
    Kernel,
    blocks_per_sm,
    product_counts,
    rows_counts,
)

SIZES = (8_192, 32_768, 131_072)  # N
FEATURES = (64, 128, 256)  # D
TERMS = 2  # the exponential sum and the linear term
README = Path(__file__).with_name("README.md")


@dataclass(frozen=True)
class Device:
    """Rates of NVIDIA's data sheets: dense, without sparsity."""

    name: str
    arch: str
    multiprocessors: int
    clock: float  # Hz
    tensor: float  # bfloat16 flop/s; of TF32 half
    mma_sync: float  # part of it that mma.sync reaches, the rest being wgmma's
    fp32: float  # FMA a multiprocessor and clock
    hbm: float  # bytes/s

    def tensor_per_clock(self, tf32: bool) -> float:
        """flops that mma.sync does on one multiprocessor in one clock."""
        return self.tensor * self.mma_sync / (2 if tf32 else 1) / self.multiprocessors / self.clock


A100 = Device("A100", "sm_80", 108, 1.41e9, 312e12, 1.0, 64, 1.94e12)
H100 = Device("H100", "sm_90", 132, 1.83e9, 989e12, 0.62, 128, 3.35e12)
MUFU = 16  # exponentials a multiprocessor and clock
SHARED = 128  # bytes likewise: a wavefront
ISSUE = 4  # instructions of warps likewise


@dataclass(frozen=True)
class Work:
    """Of one tile, or of a whole pass."""

    flops: float  # of mma instructions
    exps: float
    fp32: float  # FFMA and FADD beside them
    wavefronts: float
    instructions: float  # of warps; no fewer

    def clocks(self, device: Device, tf32: bool) -> dict[str, float]:
        """Of each unit of one multiprocessor."""
        return {
            "tensor": self.flops / device.tensor_per_clock(tf32),
            "MUFU": self.exps / MUFU,
            "FP32": self.fp32 / device.fp32,
            "shared": self.wavefronts,
            "issue": self.instructions / ISSUE,
        }


def kernel_for(direction: type[Kernel], dtype, d: int) -> Kernel:
    """The instantiation that launches for D: with_backward of tiles_launch.cuh."""
    if direction is Forward:
        return Forward(dtype, "Interval")
    panels = d // dtype.panel
    own = [p for p in ((1, 2) if dtype.element == 2 else (2,)) if panels <= p]
    return Backward(dtype, "Interval", own[0] if own else dtype.most_panels)


def product(kernel: Kernel, panels: int) -> tuple[float, float, float]:
    """flops, LDSM and splitting instructions of one warp's S = X Y^T."""
    once = product_counts(kernel.math, kernel.m, kernel.n, merged=False)
    times = panels * kernel.math.steps // kernel.math.steps_at_once
    loads = times * once["LDSM"]
    return times * once["HMMA"], loads, loads * splitting(kernel)


def splitting(kernel: Kernel) -> int:
    """Instructions on the four registers of a fragment: to TF32, the rest, to TF32."""
    if kernel.math.element == 2:
        return 0
    return 4 * (3 if kernel.math.products == 3 else 1)


def flops_of_mma(kernel: Kernel) -> int:
    """m16n8k16, or m16n8k8 of TF32."""
    return 2 * 16 * 8 * (16 if kernel.math.element == 2 else 8)


def forward_tile(kernel: Forward, d: int) -> Work:
    """One tile of kTile x kTile logits."""
    panels, warps = d // kernel.math.panel, kernel.threads // 32
    mma, loads, splits = product(kernel, panels)
    pairs = 4 * kernel.m * kernel.n  # of a lane
    rows, columns = 2 * kernel.m, 2 * kernel.n
    exchanges = TERMS * (rows // 2 + rows // 4 + columns // 2 + columns // 4 + max(columns // 8, 1))
    sums = TERMS * 2 * (rows // 4 + max(columns // 8, 1))
    resident, _ = kernel.cut(panels, TERMS)
    copied = panels * (1 if resident else 2) * kernel.tile * PANEL_BYTES
    # FFMA, EX2, two FADD; subtract, compare, select, two FADD
    return Work(
        flops=warps * mma * flops_of_mma(kernel),
        exps=kernel.tile**2,
        fp32=kernel.tile**2 * 5,
        wavefronts=warps * (4 * loads + exchanges + sums + kernel.m * kernel.n) + copied / SHARED,
        instructions=warps * (mma + loads + splits + 9 * pairs + 3 * exchanges + sums + copied / warps / 512),
    )


def backward_tile(kernel: Backward, d: int) -> Work:
    """One tile of kTile own rows and kColumns of the other side, by one slice of D."""
    dtype, warps = kernel.math, kernel.threads // 32
    panels = d // dtype.panel
    slice_ = min(panels, kernel.panels)
    mma, loads, splits = product(kernel, panels)
    rows = rows_counts(kernel)
    mma_rows = rows["HMMA"] * slice_ // kernel.panels
    loads_rows = (rows["LDSM"] + rows["LDS.128"]) * slice_ // kernel.panels
    pairs = 4 * kernel.m * kernel.n
    streamed = panels > kernel.panels
    copied = (panels * (kernel.tile + kernel.columns) if streamed else 0) + slice_ * kernel.columns  # rows of panels
    # FFMA, EX2, add coefficients; subtract, compare, add positives, select; FFMA; half a conversion
    return Work(
        flops=warps * (mma + mma_rows) * flops_of_mma(kernel),
        exps=kernel.tile * kernel.columns,
        fp32=kernel.tile * kernel.columns * 4,
        wavefronts=warps * (4 * (loads + loads_rows) + 3 * kernel.n) + copied,
        instructions=warps
        * (mma + mma_rows + loads + loads_rows + splits + loads_rows * splitting(kernel) + 8.5 * pairs)
        + copied / 4,
    )


def cut(tiles: int, supers: float) -> int:
    """Super-blocks along one side: cut_forward of launch.cu."""
    size = max(1, int(tiles / supers + 0.5))
    return -(-tiles // size)


def last_finish(blocks: list[int], places: int) -> int:
    """When the last block is done, each taking the first place that is free."""
    free = [0] * min(places, len(blocks))
    for block in blocks:
        heapq.heapreplace(free, free[0] + block)
    return max(free)


@dataclass(frozen=True)
class Pass:
    """A whole pass over N items on one device."""

    seconds: float
    limit: float  # seconds of the busiest of tensor cores, MUFU and HBM, doing nothing twice
    unit: str  # that binds
    flops: float
    exps: float
    bytes: float  # of HBM


def model(kernel: Kernel, d: int, n: int, device: Device, registers: int) -> Pass:
    """One pass."""
    dtype = kernel.math
    features, labels = n * d * dtype.element, n * 3 * 4
    resident = blocks_of(kernel, d, device, registers)
    places = device.multiprocessors * resident
    if isinstance(kernel, Forward):
        tile = forward_tile(kernel, d)
        tiles = -(-n // kernel.tile)
        supers = cut(tiles, math.sqrt(2 * 4 * device.multiprocessors))
        edges = [tiles * s // supers for s in range(supers + 1)]
        sizes = [b - a for a, b in itertools.pairwise(edges)]
        blocks = [
            sizes[p] * (sizes[p] + 1) // 2 if p == q else sizes[p] * sizes[q]
            for p in range(supers)
            for q in range(p, supers)
        ]
        count = tiles * (tiles + 1) // 2
        hbm = features + labels + 2 * TERMS * (supers + 1) * n * 4  # sums are written, and read
        least_flops, least_exps, least_bytes = n * n * d * dtype.products, n * n / 2, features
    else:
        tile = backward_tile(kernel, d)
        rows, columns = -(-n // kernel.tile), -(-n // kernel.columns)
        slices = -(-(d // dtype.panel) // kernel.panels)
        splits = splits_for(rows * slices, -(-n // max(kernel.columns, 64)), device)
        blocks = [columns * (s + 1) // splits - columns * s // splits for s in range(splits)] * (rows * slices)
        count = rows * slices * columns
        hbm = 2 * features + labels + (2 * splits * n * d * 4 if splits > 1 else 0)
        least_flops, least_exps, least_bytes = 4 * n * n * d * dtype.products, n * n, 2 * features
    clocks = tile.clocks(device, dtype.element == 4)
    unit = max(clocks, key=lambda u: clocks[u])
    seconds = last_finish(blocks, places) * resident * clocks[unit] / device.clock
    if hbm / device.hbm > seconds:
        seconds, unit = hbm / device.hbm, "HBM"
    clocks_of_all = device.multiprocessors * device.clock  # a second
    least_clocks = max(least_flops / device.tensor_per_clock(dtype.element == 4), least_exps / MUFU)
    limit = max(least_clocks / clocks_of_all, least_bytes / device.hbm)
    return Pass(seconds, limit, unit, count * tile.flops, count * tile.exps, hbm)


def splits_for(blocks: int, tiles: int, device: Device) -> int:
    """splits_for of launch.cu."""
    wave, best, best_use = 2 * device.multiprocessors, 1, 0.0
    for splits in range(1, min(16, tiles) + 1):
        use = blocks * splits / (-(-blocks * splits // wave) * wave)
        if use > best_use + 0.05:
            best, best_use = splits, use
    return best


def shared_of(kernel: Kernel, d: int) -> int:
    """Bytes of a block's shared memory."""
    return kernel.shared(d // kernel.math.panel, TERMS) if isinstance(kernel, Forward) else kernel.most_shared


def blocks_of(kernel: Kernel, d: int, device: Device, registers: int) -> int:
    """Blocks a multiprocessor has."""
    return blocks_per_sm(ARCHITECTURES[device.arch], kernel.threads, registers, shared_of(kernel, d))


# ---- tables


def tables(binaries: dict[tuple[str, str], Binary]) -> str:
    """Markdown."""
    registers = {}

    def registers_of(kernel: Kernel, device: Device) -> int:
        if (kernel, device) not in registers:
            found = [b for (a, name), b in binaries.items() if a == device.arch and re.search(kernel.mangled, name)]
            registers[kernel, device] = found[0].registers
        return registers[kernel, device]

    rows = [
        (f"{direction.__name__.lower()} {dtype.name}", kernel_for(direction, dtype, d), d)
        for direction in (Forward, Backward)
        for dtype in (BFLOAT16, TF32, FLOAT32)
        for d in FEATURES
    ]
    n = SIZES[0]
    lines = [
        f"What a pass takes, N = {n:,} on A100 (HBM traffic there; splits and super-blocks depend on the device):",
        "",
        "| kernel | D | Gflop | Mexp | HBM, MB | shared, KB | registers A100 / H100 | blocks per SM A100 / H100 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, kernel, d in rows:
        one = model(kernel, d, n, A100, registers_of(kernel, A100))
        both = [(registers_of(kernel, g), blocks_of(kernel, d, g, registers_of(kernel, g))) for g in (A100, H100)]
        lines.append(
            f"| {name} | {d} | {one.flops / 1e9:.1f} | {one.exps / 1e6:.1f} | {one.bytes / 1e6:.1f} "
            f"| {shared_of(kernel, d) / 1024:.1f} | {both[0][0]} / {both[1][0]} | {both[0][1]} / {both[1][1]} |"
        )
    for device in (A100, H100):
        lines += [
            "",
            f"{device.name}: modelled milliseconds, and the limit's part of them:",
            "",
            "| kernel | D | binding unit |" + "".join(f" N = {n:,} |" for n in SIZES),
            "|---|--:|---|" + "--:|" * len(SIZES),
        ]
        for name, kernel, d in rows:
            passes = [model(kernel, d, n, device, registers_of(kernel, device)) for n in SIZES]
            cells = "".join(f" {p.seconds * 1e3:.3g} ms, {p.limit / p.seconds:.0%} |" for p in passes)
            lines.append(f"| {name} | {d} | {passes[0].unit} |{cells}")
    return "\n".join(lines)


def write(binaries: dict[tuple[str, str], Binary]) -> None:
    """Put the tables between their marks in README.md."""
    text = README.read_text()
    begin, end = "<!-- model: begin -->\n", "<!-- model: end -->"
    before, rest = text.split(begin)
    README.write_text(before + begin + "\n" + tables(binaries) + "\n\n" + end + rest.split(end)[1])

"""How long the kernels of one interval set, self-contrast, would take if nothing but throughput mattered: a model.

Written into csrc/cuda/README.md by `python check.py LIBRARY --model`. A tile is a product of matrices and an epilogue;
in a backward also a second product. A block by itself does one after the other, each in the clocks of its busiest unit;
the blocks of a multiprocessor overlap until one unit is busy all the time. Blocks go to multiprocessors in order, each
as soon as a place is free. Latency, caches and clock changes are left out. Registers are those of the library;
everything else follows from the sizes of tiles.
"""

import heapq
import itertools
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

from binary import Binary
from instantiations import (
    ARCHITECTURES,
    BFLOAT16,
    FLOAT32,
    KB,
    PANEL_BYTES,
    TF32,
    Architecture,
    Backward,
    Forward,
    Kernel,
    Math,
    blocks_per_sm,
    product_counts,
    rows_counts,
)

SIZES = (8_192, 32_768, 131_072)  # N
FEATURES = (64, 128, 256)  # D
TERMS = 2  # the exponential sum and the linear term
README = Path(__file__).parents[3] / "csrc/cuda/README.md"


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

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    def clocks(self, device: Device, tf32: bool) -> dict[str, float]:
        """Of each unit of one multiprocessor."""
        return {
            "tensor": self.flops / device.tensor_per_clock(tf32),
            "MUFU": self.exps / MUFU,
            "FP32": self.fp32 / device.fp32,
            "shared": self.wavefronts,
            "issue": self.instructions / ISSUE,
        }


def kernel_for(direction: type[Kernel], dtype: Math, d: int, device: "Device") -> Kernel:
    """The instantiation that launches for D: with_backward of tiles_launch.cuh."""
    if direction is Forward:
        return Forward(dtype, "Interval")
    panels = d // dtype.panel
    sizes = {2: (1, 2), 4: (2, dtype.most_panels, 2 * dtype.most_panels)}[dtype.element]
    for size in sizes:
        kernel = Backward(dtype, "Interval", size)
        arch = ARCHITECTURES[device.arch]
        if panels <= size and kernel.most_shared(arch) + KB <= arch.shared:
            return kernel
    return Backward(dtype, "Interval", dtype.most_panels)


def product(kernel: Kernel, panels: int) -> tuple[float, float, float]:
    """flops, LDSM and splitting instructions of one warp's S = X Y^T."""
    once = product_counts(kernel.math, kernel.m, kernel.n, merged=False)
    times = panels * kernel.math.steps // kernel.math.steps_at_once
    loads = times * once["LDSM"]
    if isinstance(kernel, Backward) and kernel.own_in_registers:
        loads -= min(panels, kernel.panels - 1) * kernel.math.steps * kernel.m
    return times * once["HMMA"], loads, loads * splitting(kernel)


def splitting(kernel: Kernel) -> int:
    """Instructions on the four registers of a fragment: to TF32, the rest, to TF32."""
    if kernel.math.element == 2:
        return 0
    return 4 * (3 if kernel.math.products == 3 else 1)


def flops_of_mma(dtype: Math) -> int:
    """m16n8k16, or m16n8k8 of TF32."""
    return 2 * 16 * 8 * (16 if dtype.element == 2 else 8)


def forward_tile(kernel: Forward, d: int, arch: Architecture) -> list[Work]:
    """One tile of kTile x kTile logits: product, epilogue."""
    panels, warps = d // kernel.math.panel, kernel.threads // 32
    mma, loads, splits = product(kernel, panels)
    pairs = 4 * kernel.m * kernel.n  # of a lane
    rows, columns = 2 * kernel.m, 2 * kernel.n
    exchanges = TERMS * (rows // 2 + rows // 4 + columns // 2 + columns // 4 + max(columns // 8, 1))
    sums = TERMS * 2 * (rows // 4 + max(columns // 8, 1))
    resident, _ = kernel.cut(panels, TERMS, arch)
    copied = panels * (1 if resident else 2) * kernel.tile * PANEL_BYTES
    return [
        Work(
            flops=warps * mma * flops_of_mma(kernel.math),
            exps=0,
            fp32=0,
            wavefronts=warps * 4 * loads + copied / SHARED,
            instructions=warps * (mma + loads + splits) + copied / 512,
        ),
        # FFMA, EX2, two FADD; subtract, compare, select, two FADD
        Work(
            flops=0,
            exps=kernel.tile**2,
            fp32=kernel.tile**2 * 5,
            wavefronts=warps * (exchanges + sums + kernel.m * kernel.n),
            instructions=warps * (9 * pairs + 3 * exchanges + sums),
        ),
    ]


def backward_tile(kernel: Backward, d: int) -> list[Work]:
    """One tile of kTile own rows and kColumns of the other side, by one slice of D: product, epilogue, product."""
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
    return [
        Work(
            flops=warps * mma * flops_of_mma(kernel.math),
            exps=0,
            fp32=0,
            wavefronts=warps * 4 * loads + copied,
            instructions=warps * (mma + loads + splits) + copied / 4,
        ),
        # FFMA, EX2, add coefficients; subtract, compare, add positives, select; FFMA; half a conversion
        Work(
            flops=0,
            exps=kernel.tile * kernel.columns,
            fp32=kernel.tile * kernel.columns * 4,
            wavefronts=warps * 3 * kernel.n,
            instructions=warps * 8.5 * pairs,
        ),
        Work(
            flops=warps * mma_rows * flops_of_mma(kernel.math),
            exps=0,
            fp32=0,
            wavefronts=warps * 4 * loads_rows,
            instructions=warps * (mma_rows + loads_rows + loads_rows * splitting(kernel)),
        ),
    ]


def forward_supers(tiles: int, device: Device) -> int:
    """Super-blocks along one side: forward_supers of cut.h."""
    side = int(math.sqrt(2 * 4 * device.multiprocessors))

    def time(supers: int) -> int:
        return -(-(supers * (supers + 1) // 2) // device.multiprocessors) * (-(-tiles // supers)) ** 2

    return min(range(min(side, tiles), min(side * 3 // 2, tiles) + 1), key=time)


def backward_splits(blocks: int, tiles: int, resident: int, device: Device, traffic: float) -> int:
    """Splits of the other side: backward_splits of cut.h."""

    def cost(splits: int) -> float:
        total = blocks * splits
        waves, rest = divmod(total, device.multiprocessors * resident)
        most = -(-rest // device.multiprocessors)
        last = 1 / 0.7 if most == 1 and resident > 1 else most
        return (waves * resident + last) * device.multiprocessors / total + (splits * traffic if splits > 1 else 0)

    return min(range(1, min(16, tiles) + 1), key=cost)


def last_finish(blocks: list[int], multiprocessors: int, resident: int, alone: float, together: float) -> float:
    """When the last block is done, in clocks; `blocks` are in tiles, and a tile takes a block by itself `alone` clocks.

    A multiprocessor does no more than a tile in `together` clocks.
    """
    waiting = iter(blocks)
    held = [[float(b) for b in itertools.islice(waiting, 1)] for _ in range(multiprocessors)]
    for _ in range(resident - 1):
        for places in held:
            places += [float(b) for b in itertools.islice(waiting, 1)]

    def until_next(places: list[float]) -> float:
        return min(places) * max(alone, together * len(places))

    events = [(until_next(places), m) for m, places in enumerate(held) if places]
    heapq.heapify(events)
    now = 0.0
    while events:
        now, m = heapq.heappop(events)
        done = min(held[m])
        held[m] = [left - done for left in held[m] if left > done]
        while len(held[m]) < resident and (block := next(waiting, 0)):
            held[m].append(float(block))
        if held[m]:
            heapq.heappush(events, (now + until_next(held[m]), m))
    return now


@dataclass(frozen=True)
class Pass:
    """A whole pass over N items on one device, with the sums of its partial results."""

    seconds: float
    limit: float  # seconds of the busiest of tensor cores, MUFU and HBM, doing nothing twice
    binding: float  # seconds of the busiest unit, its work spread evenly
    unit: str  # that one
    flops: float
    exps: float
    bytes: float  # of HBM


def model(kernel: Kernel, d: int, n: int, device: Device, registers: int) -> Pass:
    """One pass."""
    dtype = kernel.math
    features, labels = n * d * dtype.element, n * 3 * 4
    resident = blocks_of(kernel, d, device, registers)
    arch = ARCHITECTURES[device.arch]
    if isinstance(kernel, Forward):
        phases = forward_tile(kernel, d, arch)
        tiles = -(-n // kernel.tile)
        supers = forward_supers(tiles, device)
        edges = [tiles * s // supers for s in range(supers + 1)]
        sizes = [b - a for a, b in itertools.pairwise(edges)]
        blocks = [
            sizes[p] * (sizes[p] + 1) // 2 if p == q else sizes[p] * sizes[q]
            for p in range(supers)
            for q in range(p, supers)
        ]
        count = tiles * (tiles + 1) // 2
        partial = TERMS * (supers + 1) * n * 4
        moved = features + labels + partial
        least_flops, least_exps, least_bytes = n * n * d * dtype.products, n * n / 2, features
    else:
        phases = backward_tile(kernel, d)
        rows, columns = -(-n // kernel.tile), -(-n // kernel.columns)
        slices = -(-(d // dtype.panel) // kernel.panels)
        traffic = 2 * 170 / (1 if dtype.element == 2 else 2 * dtype.products) / n
        room = min(2, arch.shared // (kernel.most_shared(arch) + KB))
        splits = backward_splits(rows * slices, -(-n // max(kernel.columns, 64)), room, device, traffic)
        blocks = [columns * (s + 1) // splits - columns * s // splits for s in range(splits)] * (rows * slices)
        count = rows * slices * columns
        partial = splits * n * d * 4 if splits > 1 else 0
        moved = features + labels + (partial or features)
        least_flops, least_exps, least_bytes = 4 * n * n * d * dtype.products, n * n, 2 * features
    tf32 = dtype.element == 4
    tile = sum(phases[1:], phases[0])
    clocks = tile.clocks(device, tf32)
    unit = max(clocks, key=lambda u: clocks[u])
    alone = sum(max(phase.clocks(device, tf32).values()) for phase in phases)
    seconds = last_finish(blocks, device.multiprocessors, resident, alone, clocks[unit]) / device.clock
    clocks_of_all = device.multiprocessors * device.clock  # a second
    binding = count * clocks[unit] / clocks_of_all
    if moved / device.hbm > seconds:
        seconds = binding = moved / device.hbm
        unit = "HBM"
    behind = partial + (features if isinstance(kernel, Backward) and partial else 0)  # read, and the gradient written
    least_clocks = max(least_flops / device.tensor_per_clock(tf32), least_exps / MUFU)
    limit = max(least_clocks / clocks_of_all, least_bytes / device.hbm)
    total = seconds + behind / device.hbm
    return Pass(total, limit, binding, unit, count * tile.flops, count * tile.exps, moved + behind)


def shared_of(kernel: Kernel, d: int, arch: Architecture) -> int:
    """Bytes of a block's shared memory."""
    if isinstance(kernel, Forward):
        return kernel.shared(d // kernel.math.panel, TERMS, arch)
    return kernel.most_shared(arch)


def blocks_of(kernel: Kernel, d: int, device: Device, registers: int) -> int:
    """Blocks a multiprocessor has."""
    arch = ARCHITECTURES[device.arch]
    return blocks_per_sm(arch, kernel.threads, registers, shared_of(kernel, d, arch))


# ---- tables


def tables(binaries: dict[tuple[str, str], Binary]) -> str:
    """Markdown."""
    registers = {}

    def registers_of(kernel: Kernel, device: Device) -> int:
        if (kernel, device) not in registers:
            found = [b for (a, name), b in binaries.items() if a == device.arch and re.search(kernel.mangled, name)]
            registers[kernel, device] = found[0].registers
        return registers[kernel, device]

    def one(direction: type[Kernel], dtype: Math, d: int, n: int, device: Device) -> tuple[Kernel, Pass]:
        kernel = kernel_for(direction, dtype, d, device)
        return kernel, model(kernel, d, n, device, registers_of(kernel, device))

    rows = list(itertools.product((Forward, Backward), (BFLOAT16, TF32, FLOAT32), FEATURES))
    n = SIZES[0]
    lines = [
        f"What a pass takes, N = {n:,} on A100 (HBM traffic there; splits and macro tiles depend on the device):",
        "",
        "| kernel | D | Gflop | Mexp | HBM, MB | shared, KB A100 / H100 | registers A100 / H100 | blocks per SM |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for direction, dtype, d in rows:
        kernel, on_a100 = one(direction, dtype, d, n, A100)
        shared = " / ".join(f"{shared_of(kernel, d, ARCHITECTURES[g.arch]) / KB:.1f}" for g in (A100, H100))
        both = [(registers_of(kernel, g), blocks_of(kernel, d, g, registers_of(kernel, g))) for g in (A100, H100)]
        lines.append(
            f"| {direction.__name__.lower()} {dtype.name} | {d} | {on_a100.flops / 1e9:.1f} | {on_a100.exps / 1e6:.1f} "
            f"| {on_a100.bytes / 1e6:.1f} | {shared} | {both[0][0]} / {both[1][0]} "
            f"| {both[0][1]} / {both[1][1]} |"
        )
    for device in (A100, H100):
        lines += [
            "",
            f"{device.name}: modelled milliseconds, the limit's part of them, and how many times the binding unit's:",
            "",
            "| kernel | D | binding unit |" + "".join(f" N = {n:,} |" for n in SIZES),
            "|---|--:|---|" + "--:|" * len(SIZES),
        ]
        for direction, dtype, d in rows:
            passes = [one(direction, dtype, d, n, device)[1] for n in SIZES]
            cells = "".join(
                f" {p.seconds * 1e3:.3g} ms, {p.limit / p.seconds:.0%}, {p.seconds / p.binding:.2f} |" for p in passes
            )
            lines.append(f"| {direction.__name__.lower()} {dtype.name} | {d} | {passes[0].unit} |{cells}")
    return "\n".join(lines)


def write(binaries: dict[tuple[str, str], Binary]) -> None:
    """Put the tables between their marks."""
    text = README.read_text()
    begin, end = "<!-- model: begin -->\n", "<!-- model: end -->"
    before, rest = text.split(begin)
    README.write_text(before + begin + "\n" + tables(binaries) + "\n\n" + end + rest.split(end)[1])

"""Measure what the project promises and print it beside the promise: what | target | measured | met.

Forward + backward, D = 128, two views, L2-normalised features. Every ratio is taken within a round, in which peer and
ours run one after the other; printed are its median and quartiles. `--quick` is a trial with few rounds and small N.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch._dynamo
from measure import (
    RESULTS,
    SCRATCH,
    THREADS,
    conditions,
    described,
    fill_in,
    peak_memory,
    save,
)
from peers import (
    COMPILED,
    COMPILED_BF16,
    IMPLEMENTATIONS,
    LEAN,
    METRIC_LEARNING,
    OURS,
    OURS_BF16,
    OURS_SETS,
    PEERS,
    PRODUCTS,
    PUBLISHED,
    SETS,
    D,
)

from mmcuda.info import instruction_set
from mmcuda.timing import Times, interleave, quartiles

ROUNDS = {64: 31, 512: 31, 1024: 31, 2048: 25, 4096: 21, 8192: 9}  # by N
PEERS_FROM = 512  # the peers are timed at this N and above, for the chart
MEMORY_N = 65536


@dataclass(frozen=True)
class Ratio:
    """Time of ``over`` divided by time of ``by``; of several ``over`` the fastest counts."""

    what: str
    n: int
    bound: float | None  # None: told for information
    over: tuple[str, ...]
    by: str = OURS
    at_most: bool = False  # the bound is an upper one
    per_flop: bool = False  # times per flop: the ratio is one of rates
    instruction_set: str | None = None  # promised only with this one


RATIOS = [
    *(
        Ratio("rate of 4 N² D flops / torch's fastest sgemm rate", n, 1.0, tuple(PRODUCTS), per_flop=True)
        for n in (2048, 4096, 8192)
    ),
    *(Ratio(f"{PUBLISHED} / mmcuda", n, x, (PUBLISHED,)) for n, x in ((512, 2.5), (1024, 3.5), (4096, 10), (8192, 10))),
    *(Ratio(f"{LEAN} / mmcuda", n, None, (LEAN,)) for n in (512, 1024, 4096, 8192)),
    Ratio(f"{METRIC_LEARNING} / mmcuda", 4096, 15, (METRIC_LEARNING,)),
    Ratio(f"{COMPILED}, fp32 / mmcuda", 4096, 2.4, (COMPILED,)),
    Ratio(f"{COMPILED_BF16} / {OURS_BF16}", 4096, 3, (COMPILED_BF16,), by=OURS_BF16),
    Ratio(f"mmcuda, fp32 / {OURS_BF16}", 4096, 1.5, (OURS,), by=OURS_BF16, instruction_set="avx512bf16"),
    Ratio(f"mmcuda, {SETS} attributes / 1", 4096, 1.15, (OURS_SETS,), at_most=True),
]


@dataclass(frozen=True)
class Row:
    """A line of the table: the median and, where there are rounds, the quartiles."""

    what: str
    n: int
    bound: float | None
    at_most: bool
    unit: str  # "" of a ratio
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    why_not: str = ""

    @property
    def met(self) -> str:
        if self.bound is None:
            return "(information)"
        if self.measured is None:
            return "not measured"
        return "yes" if (self.measured <= self.bound if self.at_most else self.measured >= self.bound) else "NO"

    def cells(self) -> list[str]:
        bound = "" if self.bound is None else f"{'<=' if self.at_most else '>='} {self.bound:g}{self.unit}"
        measured = self.why_not if self.measured is None else f"{self.measured:.3g}{self.unit}"
        if self.low is not None:
            measured += f" ({self.low:.3g} to {self.high:.3g})"
        return [f"{self.what}, N = {self.n:,}", bound, measured, self.met]


def time_all(n: int, rounds: int) -> Times:
    """Time everything that the ratios and the chart need at this N, interleaved."""
    wanted = {OURS} | {name for ratio in RATIOS if ratio.n == n for name in (*ratio.over, ratio.by)}
    if n >= PEERS_FROM:
        wanted |= {*PEERS, *PRODUCTS}
    steps = {**IMPLEMENTATIONS, **PRODUCTS}
    return interleave({name: step.step(n) for name, step in steps.items() if name in wanted}, rounds)


def flops(name: str, n: int) -> float:
    return PRODUCTS[name].flops(n) if name in PRODUCTS else 4.0 * n * n * D


def evaluate(ratio: Ratio, times: Times) -> Row:
    row = Row(ratio.what, ratio.n, ratio.bound, ratio.at_most, "")
    if ratio.instruction_set not in (None, instruction_set()):
        return replace(row, why_not=f"needs {ratio.instruction_set}, here is {instruction_set()}")

    def per(name: str) -> np.ndarray:
        return times[name] / (flops(name, ratio.n) if ratio.per_flop else 1)

    low, median, high = min((quartiles(per(name) / per(ratio.by)) for name in ratio.over), key=lambda q: q[1])
    return replace(row, measured=median, low=low, high=high)


def overhead(times: Times) -> list[Row]:
    empty = interleave({OURS: IMPLEMENTATIONS[OURS].step(2, d=1)}, ROUNDS[64])
    what = "SupConLoss, forward + backward: Python + dispatch (N = 2, D = 1: nothing to compute)"
    return [microseconds(what, 2, 150, empty[OURS]), microseconds("the same with kernels", 64, None, times[OURS])]


def microseconds(what: str, n: int, bound: float | None, seconds: np.ndarray) -> Row:
    low, median, high = (1e6 * q for q in quartiles(seconds))
    return Row(what, n, bound, True, " µs", median, low, high)


def memory() -> Row:
    what = "extra peak memory of the process"
    return Row(what, MEMORY_N, 200, True, " MB", peak_memory(OURS, MEMORY_N))


def timing(name: str, n: int, times: np.ndarray) -> dict[str, object]:
    """What the JSON says of one implementation at one N."""
    low, median, high = quartiles(times)
    row: dict[str, object] = {
        "name": name,
        "N": n,
        "median_s": median,
        "quartiles_s": [low, high],
        "rounds": len(times),
    }
    if name in PRODUCTS:
        return {**row, "shape": PRODUCTS[name].shape(n), "dtype": "float32", "pass": "product"}
    one = IMPLEMENTATIONS[name]
    return {**row, "D": D, "K": one.sets, "dtype": str(one.dtype).removeprefix("torch."), "pass": "forward + backward"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds, N <= 1024, results into results/scratch")
    quick = parser.parse_args().quick
    torch.set_num_threads(THREADS)
    torch._dynamo.config.recompile_limit = 64  # beyond it the compiled peers would silently run in eager mode

    in_memory = [] if quick else [memory()]
    times = {}
    for n, rounds in ROUNDS.items():
        if quick and n > 1024:
            break
        print(f"N = {n} ...", flush=True)
        times[n] = time_all(n, 3 if quick else rounds)
    rows = [evaluate(ratio, times[ratio.n]) for ratio in RATIOS if ratio.n in times]
    rows += [*overhead(times[64]), *in_memory]

    head = ["what", "target", "measured: median (quartiles)", "met"]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * 4, *(row.cells() for row in rows)])
    text = f"{table}\n\nConditions: {described(conditions())}, D {D}.\n"
    print(f"\n{text}")
    content = {
        "targets": [{**asdict(row), "met": row.met} for row in rows],
        "times": [timing(name, n, t) for n, of_n in times.items() for name, t in of_n.items()],
    }
    save((SCRATCH if quick else RESULTS) / "targets.json", content)
    if not quick:
        fill_in("targets", text)


if __name__ == "__main__":
    main()

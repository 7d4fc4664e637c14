"""Run the CUDA launchers, compiled for the CPU or run by an emulator of PTX, and compare with NumPy in float64.

    python check.py LIBRARY [--seed N] [--only WORD] [--dtype NAME]

LIBRARY holds csrc/cuda/launch*.cu and entry.cpp. If the process has a CUDA runtime, arrays go through its memory, else
they are passed as they are. Prints one line a case: the largest errors of losses, statistics, counts and gradients,
relative to the largest value of each, and whether they are within the tolerance of the dtype. Fails if one is not.
"""

import argparse
import ctypes
import sys
import time
from dataclasses import dataclass, field, replace

import numpy as np

DTYPES = ["bfloat16", "float16", "float32", "tf32", "float64"]
# Errors relative to the largest value. Values: sums and losses. Gradients: H and the result have the dtype's digits.
TOLERANCE = {
    "bfloat16": (2e-5, 8e-3),
    "float16": (2e-5, 1.5e-3),
    "float32": (2e-5, 2e-5),
    "tf32": (2e-3, 8e-3),
    "float64": (1e-12, 1e-12),
}


# ---- the loss family, densely, as csrc/contrastive.h writes it


@dataclass
class Case:
    """One call of the launchers."""

    n: int = 50
    m: int = 0  # 0: self-contrast
    d: int = 24
    sets: tuple[str, ...] = ("interval",)  # interval, tolerance, gaussian, overlap; mask alone
    positives: str = "outside"
    denominator: str = "all"
    both_ways: bool = False
    self_offset: int = -1  # cross-contrast only
    temperature: float = 0.2
    margin: float = 0  # > 0: the pair margin loss
    scale: float = 1  # of normalised features
    special: str = ""  # "nan row", "near pairs", "misaligned"
    only_rows: bool = False
    reduction: str = "none"
    multiprocessors: int = 8  # few: large super-blocks and no splits

    def name(self) -> str:
        """Describe what differs from the default."""
        changed = [f"{k}={v}" for k, v in vars(self).items() if v != getattr(Case(), k) and k not in ("n", "m", "d")]
        return " ".join([f"{self.n}x{self.m or 'self'}x{self.d}", *changed])


@dataclass
class Labels:
    """Of one set, over all items."""

    ranks: np.ndarray  # [3, L] int32
    values: np.ndarray | None = None  # [L] float64
    bits: np.ndarray | None = None  # [W, 2, L] int32
    relation: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [L, L]


def ranks_of(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Rank, begin and end of each value among the sorted."""
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), np.int32)
    rank[order] = np.arange(len(values))
    near = np.abs(values[:, None] - values[None]) <= tolerance
    begin = np.where(near, rank[None], len(values)).min(1)
    end = np.where(near, rank[None], -1).max(1)
    return np.stack([rank, begin, end]).astype(np.int32)


def make_labels(kind: str, items: int, samples: np.ndarray, rng: np.random.Generator) -> Labels:
    """Labels of items; items with the same sample share them."""
    count = samples.max() + 1
    classes = rng.integers(0, max(2, count // 4), count).astype(float)[samples]
    if kind == "interval":
        ranks = ranks_of(classes, 0)
    elif kind == "tolerance":
        ranks = ranks_of(rng.normal(size=count)[samples], 0.3)
    elif kind == "gaussian":
        values = rng.normal(size=count)[samples]
        ranks = ranks_of(values, 1.0)
        inside = (ranks[0][None] >= ranks[1][:, None]) & (ranks[0][None] <= ranks[2][:, None])
        gauss = 2.0 ** -((values[:, None] - values[None]) ** 2)
        return Labels(ranks, values=values, relation=inside * gauss)
    else:
        words = 2
        bits = rng.integers(0, 2**32, (words, 2, count), dtype=np.uint64).astype(np.uint32)
        bits[:, 0] &= rng.integers(0, 2**32, (words, count), dtype=np.uint64).astype(np.uint32)
        bits[:, 1, rng.random(count) < 0.1] = 0  # nothing is known
        bits[:, 0] &= bits[:, 1]
        bits = bits[..., samples]
        known = bits[:, 1, :, None] & bits[:, 1, None, :]
        both = np.bitwise_count(bits[:, 0, :, None] & bits[:, 0, None, :]).sum(0).astype(float)
        either = np.bitwise_count((bits[:, 0, :, None] | bits[:, 0, None, :]) & known).sum(0).astype(float)
        jaccard = np.where(either > 0, both / np.maximum(either, 1), known.any(0))
        ranks = ranks_of(samples.astype(float), 0)
        same = samples[:, None] == samples[None]
        return Labels(ranks, bits=np.ascontiguousarray(bits.view(np.int32)), relation=np.where(same, 1.0, jaccard))
    rank, begin, end = ranks
    return Labels(ranks, relation=((rank[None] >= begin[:, None]) & (rank[None] <= end[:, None])).astype(float))


def contrastive(x, y, allowed, relations, weights, case, grad, side):
    """Losses of the rows x, dL/d(x y^T), counts, and sums by set for the given incoming gradient."""
    dots = x @ y.T
    s = np.where(allowed, dots / case.temperature, -np.inf)
    masses = [r * allowed for r in relations]
    losses = np.zeros(len(x))
    g = np.zeros_like(dots)

    def log_sum(weight):
        top = np.where(weight > 0, s, -np.inf).max(1)
        top = np.where(np.isfinite(top), top, 0)
        e = weight * np.exp(np.where(weight > 0, s - top[:, None], -np.inf))
        total = e.sum(1)
        with np.errstate(divide="ignore"):
            return top + np.log(total), e / np.where(total == 0, 1, total)[:, None], total > 0

    for mass, weight in zip(masses, weights, strict=True):
        n = mass.sum(1)
        unrelated = allowed - mass
        active = n > 0
        if case.denominator == "negatives":
            active &= unrelated.sum(1) > 1e-6
        a = np.where(active, weight, 0.0)
        share = mass / np.where(n > 0, n, 1)[:, None]
        finite = np.where(allowed, s, 0)
        if case.denominator == "one_positive":
            log_e, p, some = log_sum(unrelated)
            z = np.where(some, log_e, -np.inf)[:, None] - finite
            losses += a * (share * np.logaddexp(0, z)).sum(1)
            sigmoid = share / (1 + np.exp(-np.clip(z, -700, 700))) * np.isfinite(z)
            g += (grad * a)[:, None] * (p * sigmoid.sum(1)[:, None] - sigmoid)
            continue
        log_d, p, _ = log_sum(allowed * 1.0 if case.denominator == "all" else unrelated)
        if case.positives == "outside":
            pull, q = (share * finite).sum(1), share
        else:
            log_n, q, _ = log_sum(mass)
            pull = log_n - np.log(np.where(n > 0, n, 1))
        with np.errstate(invalid="ignore"):
            losses += np.where(active, a * (log_d - pull), 0)
        g += (grad * a)[:, None] * (p - q)
    return losses, g / case.temperature, np.stack([m.sum(1) for m in masses])


def pair_margin(x, y, allowed, relations, weights, case, grad):
    """Losses of the rows and gradients of x and y."""
    difference = x[:, None] - y[None]
    square = (difference**2).sum(2)
    distance = np.sqrt(square)
    related = sum(w * r for w, r in zip(weights, relations, strict=True))
    gap = np.maximum(case.margin - distance, 0)
    pairs = np.maximum(allowed.sum(1), 1)
    unlike = sum(weights) - related
    losses = (allowed * (related * square + unlike * gap**2)).sum(1) / pairs
    push = gap / np.where(distance > 0, distance, 1) * (distance > 0)
    b = allowed * (related - unlike * push) * (2 * grad / pairs)[:, None]
    forces = b[..., None] * difference
    return losses, forces.sum(1), -forces.sum(0), np.stack([(r * allowed).sum(1) for r in relations])


# ---- the launchers


class LabelInput(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("ranks", "values", "bits")] + [("words", ctypes.c_int64)]


class Inputs(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("rows", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("m", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("self_offset", ctypes.c_int64),
        ("sets", ctypes.c_int),
        ("labels", LabelInput * 16),
        ("weights", ctypes.c_double * 16),
        ("mask", ctypes.c_void_p),
        ("mask_rows", ctypes.c_int64),
        ("mask_columns", ctypes.c_int64),
        ("multiprocessors", ctypes.c_int),
        ("workspace", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
    ]


class Settings(ctypes.Structure):
    _fields_ = [
        ("temperature", ctypes.c_void_p),
        *((name, ctypes.c_bool) for name in ("double_temperature", "inside", "all", "one_positive", "both_ways")),
        ("reduction", ctypes.c_int),
    ]


class Memory:
    """Device arrays of one call."""

    def __init__(self) -> None:
        self.process = ctypes.CDLL(None)
        self.cuda = self.process if hasattr(self.process, "cudaMalloc") else None
        self.arrays: list[tuple[np.ndarray, int]] = []
        self.kept: list[ctypes.c_void_p] = []

    def __del__(self) -> None:
        for start in self.kept:
            self.process.free(start)

    def put(self, array: np.ndarray, shift: int = 0) -> int:
        """Copy an array to the device, `shift` bytes behind an aligned address."""
        array = np.ascontiguousarray(array)
        if self.cuda is None:
            start = ctypes.c_void_p()  # of exactly these bytes, so that a sanitizer sees what is behind them
            self.process.posix_memalign(
                ctypes.byref(start), ctypes.c_size_t(256), ctypes.c_size_t(array.nbytes + shift)
            )
            pointer = start.value + shift
            self.kept.append(start)
            view = np.frombuffer((ctypes.c_char * array.nbytes).from_address(pointer), array.dtype).reshape(array.shape)
            view[...] = array
            self.arrays.append((view, pointer))
            return pointer
        address = ctypes.c_void_p()
        assert self.cuda.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(array.nbytes + shift)) == 0
        pointer = address.value + shift
        assert (
            self.cuda.cudaMemcpy(
                ctypes.c_void_p(pointer), ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), 1
            )
            == 0
        )
        self.arrays.append((array, pointer))
        return pointer

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, shift: int = 0) -> int:
        """Make an array full of NaN."""
        array = np.empty(shape, dtype)
        array.view(np.uint8)[...] = 0xFF
        return self.put(array, shift)

    def get(self, pointer: int) -> np.ndarray:
        """Return the array at an address that put or empty gave."""
        array = next(a for a, p in self.arrays if p == pointer)
        if self.cuda is None:
            return array
        result = np.empty_like(array)
        assert (
            self.cuda.cudaMemcpy(
                ctypes.c_void_p(result.ctypes.data), ctypes.c_void_p(pointer), ctypes.c_size_t(array.nbytes), 2
            )
            == 0
        )
        return result


def encode(x: np.ndarray, dtype: str) -> np.ndarray:
    """Round to the dtype of features; bfloat16 as its bits."""
    if dtype == "bfloat16":
        bits = x.astype(np.float32).view(np.uint32)
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)
    return x.astype({"float16": np.float16, "float64": np.float64}.get(dtype, np.float32))


def decode(x: np.ndarray, dtype: str) -> np.ndarray:
    """Return the values in float64."""
    if dtype == "bfloat16":
        x = (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float64)


def error_of(result: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference relative to the largest value; infinite where NaN are not the same."""
    if (np.isnan(result) != np.isnan(wanted)).any():
        return np.inf
    difference = np.abs(np.nan_to_num(result - wanted, posinf=np.inf)).max(initial=0)
    largest = np.abs(np.nan_to_num(wanted)).max(initial=0)
    return float(difference / largest) if largest > 0 else float(difference)


def features_of(case: Case, count: int, rng: np.random.Generator, dtype: str) -> np.ndarray:
    """Random directions, in the dtype."""
    x = rng.normal(size=(count, case.d))
    x *= case.scale / np.linalg.norm(x, axis=1, keepdims=True)
    if case.special == "near pairs" and count > 3:
        x[1] = x[0]
        x[2] = x[0] + 1e-2 * x[2]
        x[count - 1] = x[0] + 1e-3 * x[3]
    return encode(x, dtype)


def run(library: ctypes.CDLL, case: Case, dtype: str, seed: int) -> dict[str, float]:
    """Errors of one case."""
    rng = np.random.default_rng(seed)
    n, m = case.n, case.m or case.n
    cross = case.m > 0
    result_dtype = np.dtype(np.float64 if dtype == "float64" else np.float32)
    memory = Memory()
    shift = {"bfloat16": 2, "float16": 2}.get(dtype, result_dtype.itemsize) if case.special == "misaligned" else 0

    rows = features_of(case, n, rng, dtype)
    columns = features_of(case, m, rng, dtype) if cross else rows
    if cross and case.self_offset >= 0:
        rows = columns[case.self_offset : case.self_offset + n].copy()
    if case.special == "nan row":
        rows[n // 2, 0] = encode(np.array(np.nan), dtype)
    x, y = decode(rows, dtype), decode(columns, dtype)
    if not cross:
        y = x

    offset = case.self_offset if cross else 0
    allowed = np.ones((n, m), bool)
    if offset >= 0:
        allowed[np.arange(n), np.arange(n) + offset] = False
    items = n + m if cross else n
    column_samples = np.arange(m) // 2
    row_samples = (np.arange(n) + offset) // 2 if offset >= 0 else np.arange(n) // 2
    samples = np.concatenate([row_samples, column_samples]) if cross else column_samples

    inputs = Inputs(
        dtype=DTYPES.index(dtype),
        rows=memory.put(rows, shift),
        n=n,
        m=m,
        d=case.d,
        self_offset=offset,
        sets=len(case.sets),
        multiprocessors=case.multiprocessors,
    )
    if cross:
        inputs.columns = memory.put(columns, shift)
    relations, weights = [], [1.0, 0.5, 0.25, 0.75] * 4
    weights = weights[: len(case.sets)]
    for k, kind in enumerate(case.sets):
        inputs.weights[k] = weights[k]
        if kind == "mask":
            views = 2 if n % 2 == 0 and m % 2 == 0 else 1
            own = m if offset >= 0 else n
            mask = rng.random((own // views, m // views)) * (rng.random((own // views, m // views)) < 0.6)
            mask = mask.astype(result_dtype)
            inputs.mask, inputs.mask_rows, inputs.mask_columns = memory.put(mask), *mask.shape
            dense = np.repeat(np.repeat(mask.astype(float), views, 0), views, 1)
            relations.append(dense[offset : offset + n] if offset >= 0 else dense)
            continue
        labels = make_labels(kind, items, samples, rng)
        inputs.labels[k].ranks = memory.put(labels.ranks)
        if labels.values is not None:
            inputs.labels[k].values = memory.put(labels.values)
        if labels.bits is not None:
            inputs.labels[k].bits = memory.put(labels.bits)
            inputs.labels[k].words = len(labels.bits)
        relations.append(labels.relation[:n, n:] if cross else labels.relation)

    settings = Settings(
        temperature=memory.put(np.array([case.temperature], result_dtype)),
        double_temperature=dtype == "float64",
        inside=case.positives == "inside",
        all=case.denominator == "all",
        one_positive=case.denominator == "one_positive",
        both_ways=case.both_ways,
        reduction=["none", "mean", "sum"].index(case.reduction),
    )
    case = replace(case, temperature=float(result_dtype.type(case.temperature)))
    anchors = items if case.both_ways else n
    reduced = case.reduction != "none"
    grad = rng.normal(size=1 if reduced else anchors).astype(result_dtype)
    sets = len(case.sets)
    sums = (1 if settings.all else sets) + (sets if settings.inside else 0)
    losses = memory.empty(grad.shape, result_dtype)
    statistics = memory.empty((2 * sums + (sets if settings.one_positive else 0), anchors), result_dtype)
    totals = memory.empty((sets, anchors), np.dtype(np.float64))
    grad_rows = memory.empty(rows.shape, rows.dtype, shift)
    grad_columns = memory.empty(columns.shape, columns.dtype, shift) if cross and not case.only_rows else None
    grad_losses = memory.put(grad)

    def workspace(backward: bool) -> None:
        if case.margin:
            size = library.check_pair_margin_workspace(ctypes.byref(inputs), backward)
        else:
            size = library.check_contrastive_workspace(ctypes.byref(inputs), ctypes.byref(settings), backward)
        inputs.workspace = memory.empty((size,), np.dtype(np.uint8))

    pointer, number = ctypes.c_void_p, ctypes.c_double
    workspace(False)
    if case.margin:
        failed = library.check_pair_margin_forward(
            ctypes.byref(inputs), number(case.margin), pointer(losses), pointer(totals)
        )
        workspace(True)
        failed = failed or library.check_pair_margin_backward(
            ctypes.byref(inputs), number(case.margin), pointer(grad_losses), pointer(grad_rows), pointer(grad_columns)
        )
    else:
        failed = library.check_contrastive_forward(
            ctypes.byref(inputs), ctypes.byref(settings), pointer(losses), pointer(statistics), pointer(totals)
        )
        workspace(True)
        failed = failed or library.check_contrastive_backward(
            ctypes.byref(inputs),
            ctypes.byref(settings),
            pointer(grad_losses),
            pointer(statistics),
            pointer(totals),
            pointer(grad_rows),
            pointer(grad_columns),
        )
    if failed:
        raise RuntimeError(failed.decode())

    g = np.broadcast_to(grad.astype(float) / (anchors if case.reduction == "mean" else 1), (anchors,))
    with np.errstate(invalid="ignore"):
        if case.margin:
            wanted, by_rows, by_columns, counts = pair_margin(x, y, allowed, relations, weights, case, g)
        else:
            wanted, dots, counts = contrastive(x, y, allowed, relations, weights, case, g[:n], "rows")
            if case.both_ways:
                transposed = [r.T for r in relations]
                of_columns, of_dots, more = contrastive(y, x, allowed.T, transposed, weights, case, g[n:], "columns")
                wanted, counts = np.concatenate([wanted, of_columns]), np.concatenate([counts, more], 1)
                dots = dots + of_dots.T
            by_rows, by_columns = dots @ y, dots.T @ x
    if not cross:
        by_rows = by_rows + by_columns
    if reduced:
        wanted = np.array([wanted.mean() if case.reduction == "mean" else wanted.sum()])
    errors = {
        "losses": error_of(memory.get(losses).astype(float), wanted),
        "counts": error_of(memory.get(totals), counts),
        "grad_rows": error_of(decode(memory.get(grad_rows), dtype), by_rows),
    }
    if grad_columns:
        errors["grad_columns"] = error_of(decode(memory.get(grad_columns), dtype), by_columns)
    return errors


# ---- cases


def cases() -> list[Case]:
    """Shapes, relations, variants, special inputs."""
    variants = [
        {"positives": p, "denominator": d}
        for p, d in [
            ("outside", "all"),
            ("inside", "all"),
            ("outside", "negatives"),
            ("inside", "negatives"),
            ("outside", "one_positive"),
        ]
    ]
    shapes = [Case(n=n, d=d) for n, d in [(1, 1), (2, 3), (7, 8), (128, 64), (129, 65), (300, 128), (270, 200)]]
    shapes += [Case(n=64, d=130), Case(n=200, d=256), Case(n=70, d=300), Case(n=96, d=520)]
    cross = [Case(n=33, m=70, d=40), Case(n=150, m=140, d=72, both_ways=True), Case(n=1, m=300, d=16)]
    cross += [Case(n=60, m=200, d=64, self_offset=100, both_ways=both) for both in (False, True)]
    cross += [Case(n=60, m=60, d=24, self_offset=0, only_rows=True)]
    relations = [("tolerance",), ("gaussian",), ("overlap",), ("mask",), ("interval", "gaussian", "overlap")]
    family = [Case(n=50, sets=s, **v) for s in [("interval",), *relations] for v in variants]
    family += [Case(n=52, m=78, sets=s, both_ways=True, **v) for s in [("interval",), ("mask",)] for v in variants]
    family += [Case(n=40, m=90, sets=s, self_offset=30, **variants[i % 5]) for i, s in enumerate(relations)]
    family += [Case(n=140, m=150, sets=("mask",), self_offset=-1, temperature=0.01, **variants[3])]
    large = [Case(n=140, temperature=0.01, sets=s, **v) for s in [("interval",), ("gaussian",)] for v in variants]
    margins = [
        Case(n=n, m=m, d=d, margin=1.0, sets=s, special=special)
        for n, m, d, s, special in [
            (50, 0, 24, ("interval",), ""),
            (140, 0, 70, ("gaussian",), "near pairs"),
            (40, 150, 20, ("interval", "overlap"), ""),
            (60, 0, 300, ("interval",), "near pairs"),
            (60, 60, 9, ("tolerance",), "near pairs"),
        ]
    ]
    margins += [Case(n=60, m=90, self_offset=20, d=33, margin=1.5)]
    special = [
        Case(n=60, special="nan row"),
        Case(n=60, m=70, special="nan row"),
        Case(n=40, d=64, special="misaligned"),
        Case(n=40, m=50, special="nan row", both_ways=True),
        Case(n=600, d=64),
        *(Case(n=45, reduction=r) for r in ("mean", "sum")),
        Case(n=20, m=31, reduction="mean", both_ways=True),
        Case(n=30, sets=("interval", "tolerance", "gaussian", "overlap") * 4, positives="inside"),
    ]
    shapes += [
        Case(n=1500, d=8, multiprocessors=1),
        Case(n=600, m=1300, d=8, both_ways=True, multiprocessors=1),
        Case(n=1100, d=5, sets=("tolerance",) * 3, positives="inside", multiprocessors=1),
        Case(n=300, d=40, multiprocessors=132),
    ]
    return shapes + cross + family + large + margins + special


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose line has this in it")
    parser.add_argument("--dtype", default=",".join(DTYPES))
    args = parser.parse_args()
    library = ctypes.CDLL(args.library)
    for name in ("forward", "backward"):
        for loss in ("contrastive", "pair_margin"):
            getattr(library, f"check_{loss}_{name}").restype = ctypes.c_char_p
            getattr(library, f"check_{loss}_workspace").restype = ctypes.c_size_t
    library.check_inputs_size.restype = ctypes.c_size_t
    assert library.check_inputs_size() == ctypes.sizeof(Inputs), "check.py and launch.h differ"
    failures = 0
    worst: dict[str, dict[str, float]] = {}
    for dtype in args.dtype.split(","):
        for case in cases():
            line = f"{dtype:9} {case.name()}"
            if args.only not in line:
                continue
            start = time.monotonic()
            errors = run(library, case, dtype, args.seed)
            of_values, of_gradients = TOLERANCE[dtype]
            bound = {"losses": of_values, "counts": 1e-6 if dtype != "float64" else 1e-14}
            good = all(e <= bound.get(k, of_gradients) for k, e in errors.items())
            failures += not good
            for key, error in errors.items():
                of_dtype = worst.setdefault(dtype, {})
                of_dtype[key] = max(of_dtype.get(key, 0), error)
            shown = "  ".join(f"{k} {e:.1e}" for k, e in errors.items())
            print(f"{'ok  ' if good else 'FAIL'} {line}: {shown}  ({time.monotonic() - start:.2f} s)", flush=True)
    for dtype, errors in worst.items():
        print(f"worst {dtype}: " + "  ".join(f"{k} {e:.1e}" for k, e in errors.items()))
    print(f"{failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()

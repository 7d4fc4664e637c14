"""Run the CUDA launchers, compiled for the CPU or run by an emulator of PTX, and compare with NumPy in float64.

    python check.py LIBRARY [--seed N] [--only WORD] [--dtype NAME] [--shape NxD]

LIBRARY holds csrc/cuda/launch*.cu and entry.cpp. If the process has a CUDA runtime, arrays go through its memory, else
they are passed as they are. Prints one line a case: the largest errors of losses, statistics, counts and gradients,
relative to the largest value of each, and whether they are within the tolerance of the dtype. Fails if one is not.
"""

import argparse
import ctypes
import sys
import time
from dataclasses import replace

import numpy as np
from cases import Case, cases
from reference import contrastive, make_labels, pair_margin

DTYPES = ["bfloat16", "float16", "float32", "tf32", "float64"]
# Errors relative to the largest value. Values: sums and losses. Gradients: H and the result have the dtype's digits.
TOLERANCE = {
    "bfloat16": (2e-5, 8e-3),
    "float16": (2e-5, 1.5e-3),
    "float32": (2e-5, 2e-5),
    "tf32": (2e-3, 8e-3),
    "float64": (1e-12, 1e-12),
}


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
        ("shared_memory", ctypes.c_int),
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
        shared_memory=case.shared_kilobytes * 1024,
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


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose line has this in it")
    parser.add_argument("--dtype", default=",".join(DTYPES))
    parser.add_argument("--shape", help="one self-contrast of this size instead, cut into blocks as a large one")
    args = parser.parse_args()
    chosen = cases()
    if args.shape:
        n, d = map(int, args.shape.split("x"))
        chosen = [Case(n=n, d=d, multiprocessors=2)]
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
        for case in chosen:
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

"""Comparison of the CUDA launchers with NumPy in float64: compiled for the CPU, in an emulator of PTX, or on a GPU.

    python compare.py LIBRARY [--cudart LIBCUDART] [--seed N] [--only WORD] [--dtype NAME] [--shape NxD] [--few] ..

LIBRARY holds csrc/cuda/launch*.cu and entry.cpp. Prints one line per case: the largest errors of losses, counts and
gradients, relative to the largest value of each, and whether they are within the tolerance of the dtype. Exit code 1 if
one is not, 77 without a device.

A kernel that fails on a GPU, or never ends, takes the device from its process: exit code 3, and the last line says with
which option a new process continues after that case.
"""

import argparse
import contextlib
import ctypes
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from cases import Case, cases, few_cases
from interface import DTYPES, Inputs, Settings, load
from memory import DeviceLost, Memory, NoDevice, shared_memory, use_runtime, wait
from reference import contrastive, make_labels, pair_margin

sys.path.insert(0, str(Path(__file__).parents[1]))
from recovery import NO_DEVICE, lose, watched

# Errors relative to the largest value. Values: sums and losses. Gradients: H and the result have the dtype's digits.
TOLERANCE = {
    "bfloat16": (2e-5, 8e-3),
    "float16": (2e-5, 1.5e-3),
    "float32": (2e-5, 2e-5),
    "tf32": (2e-3, 8e-3),
    "float64": (1e-12, 1e-12),
}


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
        shared_memory=min(case.shared_kilobytes * 1024, shared_memory()),
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

    def finish(direction: str, refused: bytes | None) -> None:
        wait(direction)
        if refused:
            raise RuntimeError(f"{direction}: {refused.decode()}")

    pointer, number = ctypes.c_void_p, ctypes.c_double
    of_inputs, of_settings = ctypes.byref(inputs), ctypes.byref(settings)
    of_losses, of_totals, of_statistics = pointer(losses), pointer(totals), pointer(statistics)
    gradients = pointer(grad_rows), pointer(grad_columns)
    workspace(False)
    if case.margin:
        refused = library.check_pair_margin_forward(of_inputs, number(case.margin), of_losses, of_totals)
    else:
        refused = library.check_contrastive_forward(of_inputs, of_settings, of_losses, of_statistics, of_totals)
    finish("forward", refused)
    workspace(True)
    incoming = pointer(grad_losses)
    if case.margin:
        refused = library.check_pair_margin_backward(of_inputs, number(case.margin), incoming, *gradients)
    else:
        refused = library.check_contrastive_backward(
            of_inputs, of_settings, incoming, of_statistics, of_totals, *gradients
        )
    finish("backward", refused)

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


def check(library: ctypes.CDLL, case: Case, dtype: str, seed: int) -> tuple[bool, str, dict[str, float]]:
    """Run one case; return whether it agrees, what to print, and the errors."""
    begin = time.monotonic()
    try:
        errors = run(library, case, dtype, seed)
    except DeviceLost:
        raise
    except RuntimeError as refused:  # by a launcher, or by the runtime before a kernel ran
        return False, str(refused), {}
    of_values, of_gradients = TOLERANCE[dtype]
    bound = {"losses": of_values, "counts": 1e-6 if dtype != "float64" else 1e-14}
    agrees = all(error <= bound.get(name, of_gradients) for name, error in errors.items())
    shown = "  ".join(f"{name} {error:.1e}" for name, error in errors.items())
    return agrees, f"{shown}  ({time.monotonic() - begin:.2f} s)", errors


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--cudart", help="libcudart.so: run on the GPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose line has this in it")
    parser.add_argument("--dtype", default=",".join(DTYPES))
    parser.add_argument("--shape", help="one self-contrast of this size instead, cut into blocks as a large one")
    parser.add_argument("--few", action="store_true", help="few cases, which launch every kernel")
    parser.add_argument("--first", type=int, default=0, help="leave out as many cases")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after this time")
    parser.add_argument("--case-seconds", type=float, default=20, help="on a GPU a case that takes longer has lost it")
    parser.add_argument("--no-poison", action="store_true", help="leave outputs unwritten, for initcheck")
    return parser.parse_args()


def main() -> int:
    """Run the cases."""
    args = arguments()
    begin = time.monotonic()
    if args.cudart:
        try:
            use_runtime(args.cudart)
        except NoDevice as reason:
            print(reason)
            return NO_DEVICE
    Memory.poison = not args.no_poison
    chosen = few_cases() if args.few else cases()
    if args.shape:
        n, d = map(int, args.shape.split("x"))
        chosen = [Case(n=n, d=d, multiprocessors=2)]
    library = load(args.library)
    lines = [(f"{dtype:9} {case.name()}", dtype, case) for dtype in args.dtype.split(",") for case in chosen]
    lines = [line for line in lines if args.only in line[0]]
    failures, compared, left_out = 0, 0, 0
    worst: dict[str, dict[str, float]] = {}
    for number, (line, dtype, case) in enumerate(lines):
        if number < args.first:
            continue
        if time.monotonic() - begin > args.seconds:
            left_out = len(lines) - number
            print(f"{left_out} cases left out: no time", flush=True)
            break
        again = f"--first {number + 1}"
        watch = watched(args.case_seconds, line, again) if args.cudart else contextlib.nullcontext()
        try:
            with watch:
                agrees, shown, errors = check(library, case, dtype, args.seed)
        except DeviceLost as lost:
            lose(f"LOST {line}: {lost}", again)
        failures, compared = failures + (not agrees), compared + 1
        for key, error in errors.items():
            of_dtype = worst.setdefault(dtype, {})
            of_dtype[key] = max(of_dtype.get(key, 0), error)
        print(f"{'ok  ' if agrees else 'FAIL'} {line}: {shown}", flush=True)
    for dtype, errors in worst.items():
        print(f"worst {dtype}: " + "  ".join(f"{k} {e:.1e}" for k, e in errors.items()))
    print(f"{failures} failed" + (f", {left_out} left out" if left_out else "") if compared else "no case was compared")
    return int(failures > 0 or not compared)


if __name__ == "__main__":
    sys.exit(main())

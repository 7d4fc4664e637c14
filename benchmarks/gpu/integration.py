"""Checks of the losses inside PyTorch: CUDA graphs, streams, threads, layouts, large sizes, compilation, autocast.

    python integration.py [--device cuda] [--first K]

Prints one line per check, exit code 1 if one failed. With --device cpu sizes are tiny and checks of CUDA are left out.
A check that loses the device, or does not come back, ends the process with exit code 3; a new process with the option
on its last line continues after it.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import exact
import torch
from losses import TEMPERATURE, clip_inputs, supcon_inputs
from recovery import lose, no_device, watched
from torch import Tensor

from mmcuda import SupConLoss
from mmcuda.functional import cross_contrast_loss

CHECK_SECONDS = 60  # in which a check must be done
REPEATS = 20
# N x D that no tile divides, with N large, D wide, more rows than 16 bits number
SIZES = {"cuda": ((65538, 128), (33002, 130), (20002, 520), (150002, 16)), "cpu": ((130, 16), (66, 33))}
TOLERANCES = {torch.bfloat16: (1e-4, 1e-2), torch.float32: (2e-5, 1e-4)}  # errors of loss and gradient, at most

supcon = SupConLoss(temperature=TEMPERATURE, base_temperature=None, impl="fused")


class Check(NamedTuple):
    """A function that raises AssertionError, and whether it is about CUDA."""

    name: str
    run: Callable[[str], None]  # of the device
    cuda_only: bool


CHECKS: list[Check] = []


def check(name: str, cuda_only: bool = False) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    def register(run: Callable[[str], None]) -> Callable[[str], None]:
        CHECKS.append(Check(name, run, cuda_only))
        return run

    return register


def outcome(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient."""
    value = supcon(x, labels)
    return value.detach(), torch.autograd.grad(value, x)[0]


def clip(x: Tensor, y: Tensor) -> Tensor:
    return cross_contrast_loss(x, y, temperature=TEMPERATURE, symmetric=True, impl="fused")


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], what: object = "") -> None:
    for name, one, other in zip(("loss", "gradient"), found, expected, strict=True):
        assert torch.equal(one, other), f"{what} {name}: differs by {(one - other).abs().max().item():.1e}"


class CaptureFailed(Exception):
    """Leaves the process without a usable generator, so that what fails afterwards says nothing."""


def captured(x: Tensor, labels: Tensor) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]:
    """Loss and gradient in a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            found = outcome(x, labels)
    except Exception as problem:
        raise CaptureFailed(f"{type(problem).__name__}: {problem}") from problem
    return graph, found


# ---- the first check is the first to launch anything: capture must not depend on an earlier call


@check("captured before any other call, replayed: equal to eager bit by bit", cuda_only=True)
def captured_cold(device: str) -> None:
    x, labels = supcon_inputs(1026, 72, torch.bfloat16, device)
    graph, found = captured(x, labels)
    for _ in range(3):
        graph.replay()
        torch.cuda.synchronize()
        assert_same(found, outcome(x, labels))


@check("a captured graph follows its inputs", cuda_only=True)
def replayed_on_other_values(device: str) -> None:
    x, labels = supcon_inputs(514, 128, torch.float32, device)
    graph, found = captured(x, labels)
    with torch.no_grad():
        x.copy_(x.flip(0) * 0.5)
        labels.copy_(labels // 2)
    graph.replay()
    assert_same(found, outcome(x, labels))


@check("no call waits for the device", cuda_only=True)
def no_synchronization(device: str) -> None:
    x, labels = supcon_inputs(512, 128, torch.bfloat16, device)
    rows, columns = clip_inputs(300, 64, torch.float32, device)
    for mode in ("default", "error"):  # the first calls may load code
        torch.cuda.set_sync_debug_mode(mode)
        try:
            outcome(x, labels)
            torch.autograd.grad(clip(rows, columns), (rows, columns))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@check(f"the same bits in {REPEATS} calls")
def repeated(device: str) -> None:
    for n, d in ((4100, 128), (1030, 300)) if device == "cuda" else ((70, 16),):
        x, labels = supcon_inputs(n, d, torch.bfloat16, device)
        first = outcome(x, labels)
        for turn in range(REPEATS):
            assert_same(outcome(x, labels), first, f"call {turn} of {n} x {d},")


@check("the same bits on another stream, beside a busy one", cuda_only=True)
def on_streams(device: str) -> None:
    x, labels = supcon_inputs(4100, 128, torch.bfloat16, device)
    first = outcome(x, labels)
    busy = torch.randn(4096, 4096, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    found = []
    for _ in range(REPEATS):
        torch.mm(busy, busy)
        with torch.cuda.stream(side):
            found.append(outcome(x, labels))
    torch.cuda.synchronize()
    for each in found:
        assert_same(each, first)


@check("threads with different widths at once")
def in_threads(device: str) -> None:
    problems: list[str] = []

    def work(d: int) -> None:
        try:
            x, labels = supcon_inputs(602, d, torch.bfloat16, device)
            first = outcome(x, labels)
            for _ in range(200 if device == "cuda" else 5):
                assert_same(outcome(x, labels), first, f"D = {d},")
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}")

    def on_own_stream(d: int) -> None:
        if device == "cpu":
            return work(d)
        with torch.cuda.stream(torch.cuda.Stream()):
            return work(d)

    threads = [threading.Thread(target=on_own_stream, args=(d,)) for d in (64, 128, 256, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems


@check("features that begin at odd offsets of their storage")
def odd_offsets(device: str) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        even, labels = supcon_inputs(300, 64, dtype, device)
        for shift in (1, 3):
            storage = torch.empty(even.numel() + shift, dtype=dtype, device=device)
            odd = storage[shift:].view(even.shape)
            odd.copy_(even.detach())
            assert_same(outcome(odd.requires_grad_(), labels), outcome(even, labels), f"{dtype}, offset {shift},")


def against_float64(n: int, d: int, dtype: torch.dtype) -> Callable[[str], None]:
    def run(device: str) -> None:
        x, labels = supcon_inputs(n, d, dtype, device)
        value, gradient = outcome(x, labels)
        of_loss, of_gradient = exact.errors(value, [gradient], exact.supcon(x, labels, TEMPERATURE))
        most_of_loss, most_of_gradient = TOLERANCES[dtype]
        print(
            f"     loss {of_loss:.1e} (<= {most_of_loss:.0e})   gradient {of_gradient:.1e} (<= {most_of_gradient:.0e})"
        )
        assert of_loss <= most_of_loss
        assert of_gradient <= most_of_gradient

    return run


def add_sizes(device: str) -> None:
    for n, d in SIZES[device]:
        for dtype in TOLERANCES:
            name = f"{n:,} x {d}, {str(dtype).removeprefix('torch.')}, against float64"
            CHECKS.append(Check(name, against_float64(n, d, dtype), cuda_only=False))


@check("torch.compile(fullgraph=True)")
def compiled(device: str) -> None:
    x, labels = supcon_inputs(258, 64, torch.bfloat16, device)
    run = torch.compile(supcon, fullgraph=True, backend="inductor" if device == "cuda" else "aot_eager")
    value = run(x, labels)
    found = (value.detach(), torch.autograd.grad(value, x)[0])
    assert_same(found, outcome(x, labels))


@check("autocast leaves the features as they are")
def under_autocast(device: str) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        x, labels = supcon_inputs(258, 64, dtype, device)
        with torch.autocast(device, dtype=torch.bfloat16):
            found = outcome(x, labels)
        assert_same(found, outcome(x, labels), f"{dtype},")


# ---- running


def run_check(number: int, one: Check, device: str) -> bool:
    """Print whether a check passes; the device may be lost in it."""
    begin = time.monotonic()
    again = f"--first {number + 1}"
    try:
        with watched(CHECK_SECONDS, one.name, again):
            one.run(device)
            if device == "cuda":
                torch.cuda.synchronize()
    except Exception as failure:
        print(f"FAIL {one.name}\n{traceback.format_exc(limit=-3)}", flush=True)
        if isinstance(failure, CaptureFailed):
            lose(f"LOST {one.name}: {failure}", again)
        if device == "cuda":
            try:
                torch.cuda.synchronize()
            except Exception as problem:
                lose(f"LOST {one.name}: {problem}", again)
        return False
    print(f"ok   {one.name}  ({time.monotonic() - begin:.1f} s)", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--first", type=int, default=0, help="leave out as many checks")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        return no_device()
    add_sizes(args.device)
    checks = [one for one in CHECKS if args.device == "cuda" or not one.cuda_only]
    failed = [one.name for k, one in enumerate(checks) if k >= args.first and not run_check(k, one, args.device)]
    print(f"{len(failed)} of {len(checks) - args.first} checks failed" + "".join(f"\n  {name}" for name in failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

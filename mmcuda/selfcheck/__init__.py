"""The command `mmcuda selfcheck`: every kernel against the float64 reference, then a timing, for a bug report."""

from __future__ import annotations

import torch

from mmcuda import info
from mmcuda._native import extension
from mmcuda.errors import UserError
from mmcuda.selfcheck.cases import FULL, QUICK
from mmcuda.selfcheck.correctness import MODES, check_all
from mmcuda.selfcheck.speed import benchmark


def selfcheck(device: str | None = None, quick: bool = False, compile: bool = False) -> int:
    """Check, then measure, and print what is found.

    Args:
        device: "cuda" or "cpu"; None: CUDA where there is a device.
        quick: tiny sizes.
        compile: time dense PyTorch under torch.compile as well.

    Returns:
        0, or 1 if a check failed.

    Raises:
        UserError: there are no kernels to check.
    """
    absent = extension.why_no_cuda_device()
    if device == "cuda" and absent:
        raise UserError(f"--device cuda: no CUDA device was found ({absent})")
    if device is None:
        device = "cpu" if absent else "cuda"
        if absent:
            print(f"no CUDA device was found ({absent}): the CPU kernels are checked instead\n")
    if reason := extension.why_not_fused(device):
        raise UserError(f"no kernels to check on {device}: {reason}")

    for name, value in info.conditions(torch.device(device)).items():
        print(f"- {name}: {value}")
    print("\nLargest errors, relative to the largest value, and how large they may be:\n\n```")
    modes = {name: mode for name, mode in MODES.items() if device == "cuda" or mode.precision == "highest"}
    count, failed = check_all(device, QUICK if quick else FULL, modes)
    print("```\n")
    if failed:
        print(f"{failed} of {count} groups FAILED: these kernels are not timed")
        return 1
    print(f"all {count} groups agree with the float64 reference\n")
    benchmark(device, quick, compile)
    return 0

"""Comparison of the kernels, called through torch, with the float64 reference: `mmcuda selfcheck` without its timing.

python kernels.py [--device cuda] [--quick]
"""

import argparse
import sys

import torch
from recovery import NO_DEVICE

from mmcuda import info
from mmcuda._native import extension
from mmcuda.selfcheck.cases import FULL, QUICK
from mmcuda.selfcheck.correctness import MODES, check_all


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes of float32 alone")
    args = parser.parse_args()
    print(info.describe())
    if args.device == "cuda" and extension.why_no_cuda_device():
        return NO_DEVICE
    if reason := extension.why_not_fused(args.device):
        print(f"no kernels on {args.device}: {reason}")
        return 1
    modes = {"float32": MODES["float32"]} if args.quick else MODES
    count, failed = check_all(args.device, QUICK if args.quick else FULL, modes)
    print(f"{failed} of {count} groups failed")
    if args.device == "cuda":
        torch.cuda.synchronize()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

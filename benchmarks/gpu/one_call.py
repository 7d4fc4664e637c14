"""One forward + backward of SupCon on a GPU, for a profiler that begins where it is told to.

ncu --profile-from-start off .. python one_call.py N D DTYPE
"""

import sys

import torch
from losses import DTYPES, TEMPERATURE, supcon_inputs
from recovery import no_device

from mmcuda import SupConLoss


def main() -> int:
    n, d, dtype = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if not torch.cuda.is_available():
        return no_device()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    x, labels = supcon_inputs(n, d, DTYPES[dtype], "cuda")
    loss = SupConLoss(temperature=TEMPERATURE, base_temperature=None, impl="fused")
    for _ in range(3):  # warm-up
        torch.autograd.grad(loss(x, labels), x)
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    torch.autograd.grad(loss(x, labels), x)
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

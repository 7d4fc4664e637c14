"""Losses that timings.py times: ours, dense PyTorch, and published packages where they are installed.

A loss takes what `Task.inputs` makes. `TimedLoss.make` imports its package: one that is missing, or does not run here,
costs its own row only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import exact
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mmcuda import SupConLoss
from mmcuda.functional import cross_contrast_loss
from mmcuda.selfcheck.speed import TEMPERATURE as TEMPERATURE  # that of its dense loss
from mmcuda.selfcheck.speed import dense as dense_supcon

Loss = Callable[[Tensor, Tensor], Tensor]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "tf32": torch.float32}
OURS = "mmcuda"


@dataclass(frozen=True)
class TimedLoss:
    """A loss, and what is known of it."""

    name: str
    make: Callable[[float], Loss]  # of a temperature
    same_loss: bool = True  # whether its value is that of the task
    dense: bool = False  # it keeps N x N numbers
    compiles: bool = False  # at its first call, for up to half a minute


@dataclass(frozen=True)
class Task:
    """What is computed, and how much work its formula is.

    Floating-point operations are those of the memory-saving form, which keeps no N x N numbers: each of forward and
    backward makes all logits once, 2 D operations per pair; the backward then multiplies N x N coefficients with the
    features of the other side, 2 D operations per pair and side that gets a gradient. In self-contrast logits are
    symmetric, so that half of the pairs are enough, and there is one side. Our exact float32 makes three products of
    TF32 for each.
    """

    name: str
    inputs: Callable[[int, int, torch.dtype, str, float], tuple[Tensor, Tensor]]  # of N, D, dtype, device, temperature
    exact: Callable[[Tensor, Tensor, float], exact.Exact]
    flops_per_pair_and_feature: float  # forward + backward
    losses: dict[str, TimedLoss]

    def flops(self, n: int, d: int, products: int) -> float:
        """Operations of a loss that makes `products` products for each of the formula."""
        return self.flops_per_pair_and_feature * n * n * d * products


# ---- SupCon


def our_supcon(temperature: float) -> Loss:
    return SupConLoss(temperature=temperature, base_temperature=None, impl="fused")


def compiled(loss: Loss, backend: str) -> Loss:
    """Compiled for each shape anew: never slower than code for any shape."""
    torch.compiler.reset()
    return torch.compile(loss, fullgraph=True, dynamic=False, backend=backend)


def backend_for(device: str) -> str:
    """Inductor, except on a CPU: there it takes long, and this is a dry run only."""
    return "inductor" if device == "cuda" else "eager"


def supcon(device: str) -> Task:
    backend = backend_for(device)
    losses = [
        TimedLoss(OURS, our_supcon),
        TimedLoss("dense", lambda _: dense_supcon, dense=True),
        TimedLoss("dense, compiled", lambda _: compiled(dense_supcon, backend), dense=True, compiles=True),
    ]
    # N^2 D forward, N^2 D + 2 N^2 D backward
    return Task("supcon", supcon_inputs, exact.supcon, 4, {c.name: c for c in losses})


def near(x: Tensor, cosine: float = 0.7) -> Tensor:
    """Unit vectors whose cosine with those of x is about `cosine`."""
    noise = normalize(torch.randn(x.shape), dim=-1).to(x.device)
    return normalize(cosine * x + math.sqrt(1 - cosine**2) * noise, dim=-1)


def clustered(n: int, d: int, device: str) -> tuple[Tensor, Tensor]:
    """Unit vectors [N, D] about the centers of their classes, and the classes [N], of 16 each.

    With unrelated features the softmax would be flat, and gradients would hardly depend on it. Random numbers come from
    the CPU: the device's generator stays unusable after a capture into a graph that failed.
    """
    torch.manual_seed(0)
    classes = torch.arange(n, device=device) % max(n // 16, 1)
    centers = normalize(torch.randn(max(n // 16, 1), d), dim=-1).to(device)
    return near(centers[classes]), classes


def supcon_inputs(
    n: int, d: int, dtype: torch.dtype, device: str, temperature: float = TEMPERATURE
) -> tuple[Tensor, Tensor]:
    """Two views of N / 2 samples, [N / 2, 2, D], and labels [N / 2]."""
    x, labels = clustered(n // 2, d, device)
    return torch.stack([x, near(x)], 1).to(dtype).requires_grad_(), labels


# ---- CLIP


def our_clip(temperature: float) -> Loss:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return cross_contrast_loss(x, y, temperature=temperature, symmetric=True, impl="fused")

    return loss


def dense_clip(temperature: float) -> Loss:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = (x @ y.T).float() / temperature
        targets = torch.arange(len(x), device=x.device)
        return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2

    return loss


def memeff_clip(temperature: float) -> Loss:
    from memeff import MemoryEfficientCLIPLoss

    # stable=False: the gradient of the loss itself, not scaled
    return MemoryEfficientCLIPLoss(temperature=temperature, normalized_inputs=True, stable=False)


def inf_cl_clip(temperature: float) -> Loss:
    from inf_cl import cal_flash_loss

    def loss(x: Tensor, y: Tensor) -> Tensor:
        x, y = x.float(), y.float()  # as it does itself, but before it multiplies with the scale
        options = {"scale": 1 / temperature, "head_dim": math.gcd(x.shape[1], 256)}
        return (cal_flash_loss(x, y, **options).mean() + cal_flash_loss(y, x, **options).mean()) / 2

    return loss


def cut_cross_entropy_clip(temperature: float, **options: Any) -> Loss:
    from cut_cross_entropy import linear_cross_entropy

    def loss(x: Tensor, y: Tensor) -> Tensor:
        targets = torch.arange(len(x), device=x.device)
        rows = linear_cross_entropy(x / temperature, y, targets, **options)
        return (rows + linear_cross_entropy(y / temperature, x, targets, **options)) / 2

    return loss


def siglip(device: str) -> Loss:
    from siglip_kernel import fused_siglip_loss

    log_scale, bias = torch.tensor([math.log(10.0), -10.0], device=device)  # where SigLIP begins its training
    return lambda x, y: fused_siglip_loss(x, y, log_scale, bias)


def clip(device: str) -> Task:
    backend = backend_for(device)
    losses = [
        TimedLoss(OURS, our_clip),
        TimedLoss("memeff", memeff_clip, compiles=True),
        TimedLoss("inf-cl", inf_cl_clip, compiles=True),
        # It leaves out gradients of small probabilities unless told not to; nearly all are small here.
        TimedLoss("cut-cross-entropy, unfiltered", lambda t: cut_cross_entropy_clip(t, filter_eps=None), compiles=True),
        TimedLoss("cut-cross-entropy", cut_cross_entropy_clip, compiles=True),
        TimedLoss("siglip-kernel", lambda _: siglip(device), same_loss=False),
        TimedLoss("dense", dense_clip, dense=True),
        TimedLoss("dense, compiled", lambda t: compiled(dense_clip(t), backend), dense=True, compiles=True),
    ]
    # 2 N^2 D forward, 2 N^2 D + 4 N^2 D backward
    return Task("clip", clip_inputs, exact.clip, 8, {c.name: c for c in losses})


def clip_inputs(
    n: int, d: int, dtype: torch.dtype, device: str, temperature: float = TEMPERATURE
) -> tuple[Tensor, Tensor]:
    """Rows [N, D] and columns [N, D], each near its row.

    At a cold temperature less near: else the loss is 1e-12, of which float32 sums have no digit.
    """
    x, _ = clustered(n, d, device)
    y = near(x, min(0.7, 10 * temperature))
    return x.to(dtype).requires_grad_(), y.to(dtype).requires_grad_()

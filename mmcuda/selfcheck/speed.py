"""A short benchmark of the supervised contrastive loss beside dense PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcuda.losses import SupConLoss
from mmcuda.timing import Step, interleave, peak_bytes, quartiles

D = 128
VIEWS = 2
TEMPERATURE = 0.07
DENSE_BYTES = 40  # that a dense loss needs for each pair, at most
CPU_BYTES = 2e9  # that it may take on the CPU
SIZES = {"cuda": (1024, 4096, 16384), "cpu": (256, 1024)}  # N; dense bfloat16 of 4,096 takes minutes on the CPU
QUICK = (64, 256)
TOLERANCES = {torch.bfloat16: 2e-2, torch.float32: 1e-4}  # of the peers' losses beside ours
Loss = Callable[[Tensor, Tensor], Tensor]  # of features [B, 2, D] and labels [B]

ours = SupConLoss(temperature=TEMPERATURE, base_temperature=None, impl="fused")


def batch(
    n: int, d: int = D, dtype: torch.dtype = torch.float32, sets: int = 1, seed: int = 0, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Features [N / 2, 2, D], L2-normalised, and labels [B], or [K, B] of several sets: 16 samples a class."""
    torch.manual_seed(seed)
    samples = n // VIEWS
    features = normalize(torch.randn(samples, VIEWS, d), dim=-1).to(device, dtype).requires_grad_()
    classes = torch.arange(samples) % max(samples // 16, 1)
    labels = torch.stack([classes] + [classes[torch.randperm(samples)] for _ in range(sets - 1)])
    return features, labels.squeeze(0).to(device)


def dense(features: Tensor, labels: Tensor) -> Tensor:
    """The same loss in dense PyTorch, without needless N x N temporaries."""
    views = features.shape[1]
    rows = features.transpose(0, 1).flatten(0, 1)  # [N, D]
    labels = labels.repeat(views)
    logits = (rows @ rows.T).float() / TEMPERATURE
    logits.fill_diagonal_(-torch.inf)
    related = (labels[:, None] == labels).fill_diagonal_(False)
    mean_logit = logits.masked_fill(~related, 0).sum(1) / related.sum(1).clamp(min=1)
    return (logits.logsumexp(1) - mean_logit).where(related.any(1), 0).mean()


def checked_step(loss: Loss, features: Tensor, labels: Tensor) -> Step:
    """Return one forward + backward, once its loss is found equal to ours."""
    value, expected = loss(features, labels).detach().float(), ours(features, labels).detach()
    torch.testing.assert_close(value, expected, rtol=TOLERANCES[features.dtype], atol=0)
    return lambda: torch.autograd.grad(loss(features, labels), features)


def benchmark(device: str, quick: bool, compile: bool) -> None:
    """Print a Markdown table of times and, on CUDA, of memory."""
    print(f"| N (D = {D}) | features | forward + backward | median ms | / mmcuda | peak MB |")
    print("|---|---|---|---|---|---|")
    notes = []
    losses: dict[str, Loss] = {"mmcuda": ours, "dense PyTorch, eager": dense}
    if compile:
        losses["dense PyTorch, torch.compile"] = torch.compile(dense, fullgraph=True, dynamic=False)
    for n, dtype in itertools.product(QUICK if quick else SIZES[device], TOLERANCES):
        features, labels = batch(n, dtype=dtype, device=device)
        shown = f"{n:,} | {str(dtype).removeprefix('torch.')}"
        steps: dict[str, Step] = {}
        peaks: dict[str, str] = {}
        for name, loss in losses.items():
            try:
                bytes_left = torch.cuda.mem_get_info()[0] if device == "cuda" else CPU_BYTES
                if loss is not ours and DENSE_BYTES * n**2 > bytes_left:
                    raise MemoryError(f"may need {DENSE_BYTES * n**2 / 1e9:.0f} GB, there are {bytes_left / 1e9:.0f}")
                step = checked_step(loss, features, labels)
                peaks[name] = f"{peak_bytes(step) / 1e6:.1f}" if device == "cuda" else ""
                steps[name] = step
            except Exception as problem:  # a peer that does not run here, or has another loss, is told as such
                if loss is ours:
                    raise
                notes.append(f"{shown}, {name}: {type(problem).__name__}: {' '.join(str(problem).split())[:160]}")
        times = interleave(steps, 3 if quick else 9, device)
        for name in steps:
            milliseconds, ratio = (quartiles(t)[1] for t in (1e3 * times[name], times[name] / times["mmcuda"]))
            print(f"| {shown} | {name} | {milliseconds:.3f} | {ratio:.2f} | {peaks[name]} |", flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()
    for note in notes:
        print(f"\nleft out: {note.replace(' | ', ', ')}")

"""What people use today, and ours: each takes features [B, V, D] and labels [B] and returns the mean loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcuda import ClinicalSupConLoss, Equal, SupConLoss
from mmcuda.selfcheck.speed import TEMPERATURE, D, batch
from mmcuda.selfcheck.speed import dense as lean_form

SETS = 4


def published_form(features: Tensor, labels: Tensor) -> Tensor:
    """The loss of Khosla et al. 2020 (arXiv 2004.11362, L_out) as SupContrast publishes it and people run it."""
    views = features.shape[1]
    rows = torch.cat(features.unbind(dim=1))  # [N, D], one view after the other
    not_self = 1 - torch.eye(len(rows), device=rows.device)
    positives = (labels[:, None] == labels[None, :]).float().repeat(views, views) * not_self

    logits = rows @ rows.T / TEMPERATURE
    logits = logits - logits.detach().amax(dim=1, keepdim=True)
    denominator = (logits.exp() * not_self).sum(dim=1, keepdim=True)
    log_prob = logits - denominator.log()
    return -((positives * log_prob).sum(dim=1) / positives.sum(dim=1).clamp(min=1)).mean()


def lean_form_autocast(features: Tensor, labels: Tensor) -> Tensor:
    with torch.autocast(features.device.type, torch.bfloat16):
        return lean_form(features, labels)


@functools.cache
def metric_learning_loss() -> torch.nn.Module:
    from pytorch_metric_learning.losses import SupConLoss as MetricLearningSupConLoss  # the other peers run without it

    return MetricLearningSupConLoss(temperature=TEMPERATURE)


def metric_learning(features: Tensor, labels: Tensor) -> Tensor:
    """The loss of the package pytorch-metric-learning."""
    return metric_learning_loss()(features.flatten(0, 1), labels.repeat_interleave(features.shape[1]))


supcon = SupConLoss(temperature=TEMPERATURE, impl="fused")
clinical = ClinicalSupConLoss({f"value {k}": Equal() for k in range(SETS)}, temperature=TEMPERATURE, impl="fused")


def clinical_sets(features: Tensor, labels: Tensor) -> Tensor:
    """Several attributes in one pass; labels [K, B]."""
    return clinical(features, dict(zip(clinical.relations, labels, strict=True)))


@dataclass(frozen=True)
class Implementation:
    """A loss and the batch that it gets."""

    loss: Callable[[Tensor, Tensor], Tensor]
    dtype: torch.dtype = torch.float32
    sets: int = 1
    tolerance: float = 1e-4  # relative, of the loss against ours in float32 on the same features

    def step(self, n: int, d: int = D) -> Callable[[], None]:
        """One forward + backward on a batch of N rows, once its loss is found equal to ours."""
        features, labels = batch(n, d, self.dtype, self.sets)
        with torch.no_grad():
            ours = sum(supcon(features.float(), one) for one in labels.view(self.sets, -1))
            torch.testing.assert_close(self.loss(features, labels).float(), ours, rtol=self.tolerance, atol=0)

        def run() -> None:
            features.grad = None
            self.loss(features, labels).backward()

        return run


def compiled(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return torch.compile(loss, fullgraph=True, dynamic=False)  # code for each N: never slower than code for any N


OURS = "mmcuda"
PUBLISHED = "dense eager, published form"
LEAN = "dense eager, lean form"
COMPILED = "torch.compile of the lean form"
METRIC_LEARNING = "pytorch-metric-learning"
OURS_BF16 = "mmcuda, bf16 features"
COMPILED_BF16 = "torch.compile of the lean form, bf16 autocast"
OURS_SETS = f"mmcuda, {SETS} attributes"

IMPLEMENTATIONS = {
    OURS: Implementation(supcon),
    PUBLISHED: Implementation(published_form),
    LEAN: Implementation(lean_form),
    COMPILED: Implementation(compiled(lean_form)),
    METRIC_LEARNING: Implementation(metric_learning),
    OURS_BF16: Implementation(supcon, torch.bfloat16, tolerance=1e-2),
    COMPILED_BF16: Implementation(compiled(lean_form_autocast), torch.bfloat16, tolerance=2e-2),
    OURS_SETS: Implementation(clinical_sets, sets=SETS),
}
PEERS = [PUBLISHED, LEAN, COMPILED, METRIC_LEARNING]  # timed at every N


@dataclass(frozen=True)
class Product:
    """torch's own sgemm into a preallocated result: the rate that the loss is measured against."""

    shape: Callable[[int], tuple[int, int, int]]  # of N: rows, inner, columns

    def flops(self, n: int) -> float:
        rows, inner, columns = self.shape(n)
        return 2.0 * rows * inner * columns

    def step(self, n: int) -> Callable[[], Tensor]:
        rows, inner, columns = self.shape(n)
        a, b, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
        return lambda: torch.mm(a, b, out=out)


PRODUCTS = {
    "sgemm [N, D] x [D, N]": Product(lambda n: (n, D, n)),
    "sgemm 2048 x 2048 x 2048": Product(lambda n: (2048, 2048, 2048)),
}

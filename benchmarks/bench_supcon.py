"""How the time of our loss depends on its arguments, beside their default. The peers are timed by targets.py.

Run with `make bench`; times compare only within one run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from measure import conditions, peak_memory
from peers import LEAN, OURS, batch
from torch import Tensor

from mmcuda.functional import cross_contrast_loss, pair_margin_loss, supcon_loss
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Relation, Within

FINDINGS = 20  # columns of the multi-hot labels


@dataclass(frozen=True)
class Case:
    """Self-contrast of N anchors unless ``queue`` says against how many keys without a gradient."""

    n: int = 4096
    d: int = 128
    k: int = 1  # attributes
    dtype: torch.dtype = torch.float32
    relation: Relation | str = field(default_factory=Equal)  # or "mask", a dense one, or "none": a sample's own views
    positives: str = "out"
    denominator: str = "all"
    backward: bool = True
    queue: int = 0
    symmetric: bool = False
    margin: bool = False  # the pair margin loss

    def __str__(self) -> str:
        """What differs from the default."""
        default = vars(Case())
        shown = {name: value for name, value in vars(self).items() if name == "n" or value != default[name]}
        return " ".join(f"{name}={value}" for name, value in shown.items())

    def asdict(self) -> dict[str, object]:
        return {name: value if isinstance(value, int) else str(value) for name, value in vars(self).items()}


CASES = [
    *(Case(n, d, backward=backward) for n in (512, 2048, 8192) for d in (64, 128, 512) for backward in (False, True)),
    *(Case(k=k) for k in (1, 2, 4, 8)),
    *(Case(dtype=dtype, backward=b) for dtype in (torch.bfloat16, torch.float16, torch.float64) for b in (False, True)),
    *(Case(relation=relation) for relation in (Within(1.0), Rbf(1.0), Overlap(), "mask", "none")),
    Case(denominator="negatives"),
    Case(denominator="sincere"),
    Case(positives="in"),
    Case(positives="in", denominator="negatives"),
    Case(denominator="sincere", relation=Rbf(1.0)),
    Case(margin=True),
    Case(256, queue=65536),
    Case(256, queue=65536, backward=False),
    Case(256, queue=65536, dtype=torch.bfloat16),
    Case(relation="none", symmetric=True, queue=4096),
]


def values(classes: Tensor, relation: Relation | str) -> Tensor:
    """Label values [B] of a relation, multi-hot [B, C] for Overlap, from integer classes [B]."""
    if isinstance(relation, Overlap):
        return (torch.rand(len(classes), FINDINGS) < 0.2).float()
    return classes.double() if isinstance(relation, Within | Rbf) else classes


def queue_step(case: Case) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """Rows against a labelled queue; without labels anchor i's only positive is key i, as in image-text pairs."""
    anchors, classes = batch(case.n, case.d, case.dtype)
    keys, queue_classes = batch(case.queue, case.d, case.dtype, seed=1)
    anchors, classes = anchors.detach().flatten(0, 1).requires_grad_(), classes.repeat_interleave(2)
    keys, queue_classes = keys.detach().flatten(0, 1), queue_classes.repeat_interleave(2)
    keys.requires_grad_(case.symmetric)
    sets = [] if case.relation == "none" else [Attribute(classes, case.relation, keys=queue_classes)]
    loss = partial(cross_contrast_loss, anchors, keys, sets, temperature=0.07, symmetric=case.symmetric)
    return [anchors, keys], partial(loss, positives=case.positives, denominator=case.denominator)


def self_step(case: Case) -> tuple[list[Tensor], Callable[[], Tensor]]:
    features, classes = batch(case.n, case.d, case.dtype, case.k)
    if case.margin:
        sets = [Attribute(classes.repeat_interleave(2), case.relation)]
        anchors = features.detach().flatten(0, 1).requires_grad_()
        return [anchors], partial(pair_margin_loss, anchors, None, sets, margin=1.0)
    mask, sets = None, []
    if case.relation == "mask":
        mask = (classes[:, None] == classes).float()
    elif case.relation != "none":
        sets = [Attribute(values(one, case.relation), case.relation) for one in classes.view(case.k, -1)]
    loss = partial(supcon_loss, features, sets, mask=mask, temperature=0.07)
    return [features], partial(loss, positives=case.positives, denominator=case.denominator)


@pytest.mark.parametrize("case", CASES, ids=str)
def bench_loss(benchmark, case):
    leaves, loss = queue_step(case) if case.queue else self_step(case)

    def forward():
        with torch.no_grad():
            loss(impl="fused")

    def forward_backward():
        for leaf in leaves:
            leaf.grad = None
        loss(impl="fused").backward()

    benchmark.extra_info.update(conditions() | case.asdict())
    benchmark.pedantic(forward_backward if case.backward else forward, rounds=11, warmup_rounds=2)


@pytest.mark.parametrize("name", [OURS, LEAN])
@pytest.mark.parametrize("n", [4096, 16384])
def bench_peak_memory(benchmark, name, n):
    """Growth of a fresh process's peak memory over one forward + backward, in extra_info; the time says nothing."""
    peak = benchmark.pedantic(peak_memory, args=(name, n), rounds=1)
    benchmark.extra_info.update(conditions(), implementation=name, n=n, d=128, k=1, peak_MB=round(peak, 1))

"""Every kernel of every instruction set once, small: what `make sanitize` runs on a build with sanitizers."""

import math

import pytest
import torch
from cases import VARIANTS
from torch.nn.functional import normalize

from mmcuda._native import extension
from mmcuda.functional import cross_contrast_loss, pair_margin_loss, supcon_loss
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Within

pytestmark = [
    pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or ""),
    pytest.mark.usefixtures("implementation"),
]


def attributes(anchors, keys=None):
    def grades(n):
        return torch.randint(-1, 3, (n,))

    def values(n):
        return torch.rand(n).masked_fill(torch.rand(n) < 0.2, math.nan)

    def findings(n):
        return torch.randint(-1, 2, (n, 40))

    kinds = [(grades, Equal()), (values, Within(0.1)), (values, Rbf(0.1)), (findings, Overlap())]
    return [Attribute(make(anchors), r, keys=keys and make(keys)) for make, r in kinds]


def run(loss, *features):
    """Forward and backward; returns what the threads wrote."""
    features = [f.detach().requires_grad_() for f in features]
    losses = loss(*features)
    return [losses, *torch.autograd.grad(losses.sum(), features)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [1.0, 20.0])
def test_every_kernel(norm, dtype):
    views = (normalize(torch.randn(101, 2, 35), dim=-1) * norm).to(dtype)
    image, text = (normalize(torch.randn(n, 35), dim=-1).to(dtype) * norm for n in (203, 100))
    within, between = attributes(101), attributes(203, 100)
    mask = torch.rand(101, 101)
    results = []
    for positives, denominator in VARIANTS:
        options = {"positives": positives, "denominator": denominator, "impl": "fused", "reduction": "none"}
        results += run(lambda x, o=options: supcon_loss(x, within, **o), views)
        results += run(lambda x, o=options: supcon_loss(x, mask=mask, **o), views)
        results += run(lambda x, y, o=options: cross_contrast_loss(x, y, between, symmetric=True, **o), image, text)
    results += run(lambda x, y: pair_margin_loss(x, y, between, impl="fused"), image, text)
    results += run(lambda x: pair_margin_loss(x, None, attributes(203), impl="fused"), image)
    assert all(result.isfinite().all() for result in results)

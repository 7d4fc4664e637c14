"""The operators as citizens of PyTorch: opcheck, gradcheck, compile, autocast, refused derivatives."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from mmcuda import ClinicalSupConLoss, SupConLoss, Within, _extension, ops
from mmcuda.labels import Equal

pytestmark = pytest.mark.skipif(_extension.native is None, reason=_extension.missing_reason or "")


def arguments(dtype=torch.float64, with_mask=False):
    """Arguments of supcon_fwd: 9 samples, 2 views, 2 label sets."""
    features = normalize(torch.randn(18, 5, dtype=dtype), dim=-1).requires_grad_()
    values = torch.rand(9, dtype=torch.float64).masked_fill(torch.arange(9) == 4, math.nan)
    ranks = ops.label_ranks([torch.arange(9) % 3, values], [0.0, 0.2])
    mask = (torch.rand(9, 9) < 0.4).to(dtype) if with_mask else None
    return features, ranks, [1.0, 0.5], mask, 0.2


def test_label_ranks_are_intervals():
    """Known values are ranked by size; a missing one is alone in its interval."""
    ((rank, first, last),) = ops.label_ranks([torch.tensor([7.0, math.nan, 5.0, 7.5], dtype=torch.float64)], [0.5])
    assert rank.tolist() == [1, 3, 0, 2]
    assert first.tolist() == [1, 3, 0, 1]
    assert last.tolist() == [2, 3, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_mask", [False, True])
def test_opcheck(dtype, with_mask):
    features, ranks, weights, mask, temperature = arguments(dtype, with_mask)
    operators = torch.ops.mmcuda
    torch.library.opcheck(operators.supcon_fwd.default, (features, ranks, weights, mask, temperature))
    features = features.detach()
    losses, statistics = operators.supcon_fwd(features, ranks, weights, mask, temperature)
    backward_arguments = (torch.rand_like(losses), features, statistics, ranks, weights, mask, temperature)
    torch.library.opcheck(operators.supcon_bwd.default, backward_arguments)
    torch.library.opcheck(operators.label_ranks.default, ([torch.arange(9), torch.rand(9).double()], [0.0, 0.5]))


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("temperature", [0.2, 0.005])
def test_gradcheck(with_mask, temperature):
    """At temperature 0.005 the exponents leave the range of the constant shift."""
    features, ranks, weights, mask, _ = arguments(with_mask=with_mask)
    assert torch.autograd.gradcheck(
        lambda z: ops.supcon_losses(z, ranks, weights, mask, temperature), features, eps=1e-7, atol=1e-4
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_without_graph_breaks(dynamic):
    criterion = ClinicalSupConLoss({"grade": Equal(), "cst": Within(0.3)})
    compiled = torch.compile(criterion, fullgraph=True, dynamic=dynamic)
    for samples in (6, 11):
        features = normalize(torch.randn(samples, 2, 8), dim=-1)
        labels = {"grade": torch.arange(samples) % 3, "cst": torch.rand(samples)}
        eager, fused = features.clone().requires_grad_(), features.clone().requires_grad_()
        criterion(eager, labels).backward()
        compiled(fused, labels).backward()
        torch.testing.assert_close(fused.grad, eager.grad)


def test_compile_of_supcon():
    features = normalize(torch.randn(6, 2, 8), dim=-1)
    criterion = SupConLoss()
    compiled = torch.compile(criterion, fullgraph=True)
    torch.testing.assert_close(compiled(features), criterion(features))
    mask = (torch.rand(6, 6) < 0.5).float()
    torch.testing.assert_close(compiled(features, mask=mask), criterion(features, mask=mask))


def test_autocast_computes_in_float32():
    features, ranks, weights, _, temperature = arguments(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = ops.supcon_losses(features.bfloat16(), ranks, weights, None, temperature)
    assert losses.dtype == torch.float32


def test_second_derivative_is_refused():
    features = normalize(torch.randn(6, 2, 8), dim=-1).requires_grad_()
    (grad,) = torch.autograd.grad(SupConLoss(impl="fused")(features), features, create_graph=True)
    with pytest.raises(NotImplementedError, match="use impl='reference' for higher derivatives"):
        grad.sum().backward()


def test_gradient_of_the_mask_is_refused():
    features, ranks, weights, mask, temperature = arguments(with_mask=True)
    losses = ops.supcon_losses(features, ranks, weights, mask.requires_grad_(), temperature)
    with pytest.raises(NotImplementedError, match="no gradient of the mask"):
        losses.sum().backward()


def test_native_checks_stand_alone():
    """Called past the Python checks, the operators still refuse instead of reading out of bounds."""
    features, ranks, weights, _, temperature = arguments()
    with pytest.raises(RuntimeError, match="multiple of 9 rows, got 17"):
        ops.supcon_losses(features[:17], ranks, weights, None, temperature)
    with pytest.raises(RuntimeError, match="weights must have one value per label set"):
        ops.supcon_losses(features, ranks, [1.0], None, temperature)
    with pytest.raises(RuntimeError, match="features must be float32 or float64"):
        ops.supcon_losses(features.half(), ranks, weights, None, temperature)
    with pytest.raises(RuntimeError, match=r"mask must be \[9, 9\]"):
        ops.supcon_losses(features, ranks, weights, torch.ones(8, 8, dtype=torch.float64), temperature)
    with pytest.raises(RuntimeError, match="labels must be int64 or float64"):
        ops.label_ranks([torch.zeros(3, dtype=torch.int32)], [0.0])

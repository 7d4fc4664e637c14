"""The CUDA path on the CPU, beyond what every implementation is tested for: labels, limits, the library itself."""

import importlib.util
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcuda import _extension
from mmcuda.functional import supcon_loss
from mmcuda.labels import Equal, LabelSet

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mmcuda._simt") is None, reason="mmcuda._simt was not built: MMCUDA_SIMT=ON builds it"
)


@pytest.fixture(scope="module")
def simt():
    import mmcuda._simt  # noqa: F401  (registers the operators)

    return torch.ops.mmcuda_simt


def related(ranks, views):
    """Return which items are in each other's intervals, [K, L, L]."""
    rank, first, last = ranks[:, 0, None, :], ranks[:, 1, :, None], ranks[:, 2, :, None]
    assert rank.shape[-1] % views == 0
    return (first <= rank) & (rank <= last)


values = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.5, 2.0, 1e300, -1e300])


@given(st.lists(values, min_size=1, max_size=40), st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 3))
def test_label_ranks_relate_the_same_samples(simt, floats, tolerance, views):
    labels = [
        torch.tensor(floats, dtype=torch.float64),
        torch.tensor([-1 if math.isnan(f) else len(str(f)) for f in floats]),
    ]
    on_device, on_cpu = (library.label_ranks(labels, [tolerance, 0.0], views) for library in (simt, torch.ops.mmcuda))
    assert torch.equal(related(on_device, views), related(on_cpu, views))


def test_more_label_sets_than_fit_are_refused(simt, monkeypatch):
    monkeypatch.setattr("mmcuda.ops.operators", simt)
    features = torch.nn.functional.normalize(torch.randn(6, 1, 4), dim=-1)
    sets = [LabelSet(torch.arange(6) % 2, Equal(), weight=0.1)] * 17
    torch.testing.assert_close(
        supcon_loss(features, sets[:16], impl="fused"), supcon_loss(features, sets[:16], impl="reference")
    )
    with pytest.raises(RuntimeError, match="label sets must be at most 16 on CUDA, got 17"):
        supcon_loss(features, sets, impl="fused")


def test_tf32_is_used_only_when_asked_for(simt, monkeypatch):
    monkeypatch.setattr("mmcuda.ops.operators", simt)
    features = torch.nn.functional.normalize(torch.randn(80, 1, 64), dim=-1)
    labels = [LabelSet(torch.arange(80) % 9, Equal())]
    exact = supcon_loss(features.double(), labels, impl="reference").item()
    errors = {}
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            errors[precision] = abs(supcon_loss(features, labels, impl="fused").item() - exact)
    finally:
        torch.set_float32_matmul_precision(before)
    assert errors["highest"] < 1e-5
    assert errors["highest"] < errors["high"] < 1e-2


def test_library_with_cuda_kernels_loads_without_a_driver():
    """It was loaded here; where there is no device, CPU tensors are served all the same."""
    assert _extension.native.build_info()["cuda"]
    features = torch.nn.functional.normalize(torch.randn(6, 1, 4), dim=-1)
    assert supcon_loss(features, [LabelSet(torch.arange(6) % 2, Equal())], impl="fused").isfinite()

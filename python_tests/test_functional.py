"""The fused kernels against the float64 reference, on every instruction set this processor runs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from mmcuda import _extension
from mmcuda.functional import supcon_loss
from mmcuda.labels import Equal, LabelSet, Within

pytestmark = pytest.mark.skipif(_extension.native is None, reason=_extension.missing_reason or "")

# dtype -> (relative tolerance of the loss, of the gradient in units of its largest entry)
TOLERANCES = {torch.float64: (1e-11, 1e-10), torch.float32: (1e-5, 2e-5)}
# samples, views, D: odd everywhere, across block borders (96 rows), a single row, D = 1
SHAPES = [(1, 1, 3), (1, 2, 3), (2, 1, 1), (7, 2, 5), (95, 1, 8), (96, 1, 8), (97, 1, 8), (50, 3, 33), (126, 2, 507)]
INSTRUCTION_SETS = _extension.native.build_info()["cpu"] if _extension.native else []


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request):
    before = _extension.native.instruction_set()
    _extension.native.set_instruction_set(request.param)
    yield request.param
    _extension.native.set_instruction_set(before)


def random_label_sets(samples):
    grade = torch.randint(-1, 3, (samples,))
    thickness = (torch.rand(samples, dtype=torch.float64) * 100).masked_fill(torch.rand(samples) < 0.2, math.nan)
    return [LabelSet(grade, Equal()), LabelSet(thickness, Within(10.0), 0.5), LabelSet(grade, Within(1), 2.0)]


def loss_and_gradient(features, impl, **arguments):
    features = features.clone().requires_grad_()
    loss = supcon_loss(features, impl=impl, **arguments)
    return loss.detach(), torch.autograd.grad(loss, features)[0]


def assert_equals_reference(features, dtype, **arguments):
    expected, expected_grad = loss_and_gradient(features.double(), "reference", **arguments)
    loss, grad = loss_and_gradient(features.to(dtype), "fused", **arguments)
    rtol, grad_rtol = TOLERANCES[dtype]
    assert loss.dtype == grad.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, rtol=rtol, atol=rtol)
    # Where everything cancels (two rows, both positives) what is left is rounding of terms of size 1 / (tau N).
    scale = max(float(expected_grad.abs().max()), 1 / (0.07 * features[..., 0].numel()))
    torch.testing.assert_close(grad.double(), expected_grad, rtol=0, atol=grad_rtol * scale)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_label_sets(instruction_set, shape, dtype):
    samples, views, d = shape
    features = normalize(torch.randn(samples, views, d, dtype=torch.float64), dim=-1).to(dtype)
    assert_equals_reference(features, dtype, label_sets=random_label_sets(samples))
    assert_equals_reference(features, dtype, label_sets=random_label_sets(samples)[:1], contrast_mode="one")
    assert_equals_reference(features, dtype)  # SimCLR


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_mask(instruction_set, shape, dtype):
    """Asymmetric and soft masks, some rows without any positive."""
    samples, views, d = shape
    features = normalize(torch.randn(samples, views, d, dtype=torch.float64), dim=-1).to(dtype)
    mask = torch.rand(samples, samples) * (torch.rand(samples, samples) > 0.7)
    mask[::3] = 0
    assert_equals_reference(features, dtype, mask=mask.double())
    assert_equals_reference(features, dtype, mask=mask.double(), contrast_mode="one")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("norm", "temperature"), [(40.0, 1.0), (1.0, 0.005), (1e-3, 0.07), (300.0, 0.07)])
def test_logits_beyond_the_constant_shift(instruction_set, norm, temperature, dtype):
    """Rows of very different norms: exp of the largest logit overflows, the running maximum does not."""
    features = normalize(torch.randn(75, 2, 64, dtype=torch.float64), dim=-1) * norm
    features *= torch.rand(75, 1, 1, dtype=torch.float64)
    label_sets = random_label_sets(75)
    features = features.to(dtype)
    expected, expected_grad = loss_and_gradient(
        features.double(), "reference", label_sets=label_sets, temperature=temperature
    )
    loss, grad = loss_and_gradient(features, "fused", label_sets=label_sets, temperature=temperature)
    dense, dense_grad = loss_and_gradient(features, "reference", label_sets=label_sets, temperature=temperature)
    # No worse than twice the dense form at the same dtype, which loses digits of its own in logits this large.
    rtol, grad_rtol = TOLERANCES[dtype]
    assert abs(loss - expected) <= 2 * abs(dense - expected) + rtol * abs(expected)
    worst = (grad - expected_grad).abs().max()
    assert worst <= 2 * (dense_grad - expected_grad).abs().max() + grad_rtol * expected_grad.abs().max()


@given(
    samples=st.integers(1, 40),
    views=st.integers(1, 3),
    d=st.integers(1, 20),
    grades=st.lists(st.integers(-1, 3), min_size=40, max_size=40),
    values=st.lists(
        st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.1, 0.2, 0.3]), st.floats(-1e300, 1e300)),
        min_size=40,
        max_size=40,
    ),
    tolerance=st.sampled_from([0.0, 0.1, 1.0, 1e290]),
    data=st.randoms(use_true_random=False),
)
def test_any_labels(samples, views, d, grades, values, tolerance, data):
    torch.manual_seed(data.randrange(2**31))
    features = normalize(torch.randn(samples, views, d, dtype=torch.float64), dim=-1)
    label_sets = [
        LabelSet(torch.tensor(grades[:samples]), Equal(), 0.7),
        LabelSet(torch.tensor(values[:samples], dtype=torch.float64), Within(tolerance), 1.3),
    ]
    assert_equals_reference(features, torch.float64, label_sets=label_sets)


def test_identifiers_of_64_bits_are_told_apart():
    """Hashed patient ids differ in the last bit, which a float64 would lose."""
    big = 2**62
    features = normalize(torch.randn(4, 1, 8, dtype=torch.float64), dim=-1)
    label_sets = [LabelSet(torch.tensor([big, big + 1, big, big + 1]), Equal())]
    assert_equals_reference(features, torch.float64, label_sets=label_sets)


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_no_positives_anywhere_is_zero(impl):
    features = normalize(torch.randn(6, 1, 8), dim=-1)
    for labels in (torch.arange(6), torch.full((6,), -1)):
        loss, grad = loss_and_gradient(features, impl, label_sets=[LabelSet(labels, Equal())])
        assert loss == 0
        assert torch.count_nonzero(grad) == 0


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_single_row_is_zero(impl):
    loss, grad = loss_and_gradient(torch.ones(1, 1, 4), impl)
    assert loss == 0
    assert torch.count_nonzero(grad) == 0


def test_all_labels_missing_is_simclr():
    features = normalize(torch.randn(9, 2, 8), dim=-1)
    missing = [LabelSet(torch.full((9,), math.nan), Within(3.0))]
    torch.testing.assert_close(supcon_loss(features, missing), supcon_loss(features))


@pytest.mark.parametrize("temperature", [0.07, 0.01])
def test_collapsed_features_keep_their_digits(temperature):
    """All logits nearly equal and near 1 / tau: an error of the long sums would be magnified by 1 / tau."""
    direction = torch.randn(64)
    features = normalize(20 * direction + torch.randn(1024, 2, 64), dim=-1)
    arguments = {"label_sets": [LabelSet(torch.arange(1024) % 50, Equal())], "temperature": temperature}
    expected = supcon_loss(features.double(), impl="reference", **arguments)
    torch.testing.assert_close(supcon_loss(features, impl="fused", **arguments).double(), expected, rtol=5e-7, atol=0)


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_autocast_does_not_cost_digits(impl):
    features = normalize(torch.randn(20, 2, 16), dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = supcon_loss(features, impl=impl)
    torch.testing.assert_close(loss, supcon_loss(features, impl=impl))


def test_bits_do_not_depend_on_threads():
    features = normalize(torch.randn(401, 2, 40), dim=-1)
    label_sets = random_label_sets(401)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 8, 2):
            torch.set_num_threads(count)
            results.append(loss_and_gradient(features, "fused", label_sets=label_sets))
    finally:
        torch.set_num_threads(threads)
    for loss, grad in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(grad, results[0][1])


def test_memory_layout_does_not_matter():
    features = normalize(torch.randn(16, 6, 10, dtype=torch.float64), dim=-1)[:, ::2].transpose(0, 1).transpose(0, 1)
    assert not features.is_contiguous()
    assert_equals_reference(features, torch.float64, label_sets=random_label_sets(16))


def test_half_precision_returns_its_own_gradient():
    features = normalize(torch.randn(20, 2, 16), dim=-1).bfloat16().requires_grad_()
    loss = supcon_loss(features)
    loss.backward()
    assert loss.dtype == torch.float32
    assert features.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, supcon_loss(features.detach().float()))


VALID = torch.ones(4, 2, 8)


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (
            ValueError,
            {"features": VALID.long()},
            "features must be float16, bfloat16, float32 or float64, got torch.int64",
        ),
        (TypeError, {"features": VALID.tolist()}, "features must be a tensor, got list"),
        (TypeError, {"features": VALID.to_sparse()}, "features must be a dense tensor, got layout torch.sparse_coo"),
        (ValueError, {"features": VALID[:, :1] * math.nan}, "features must be finite, got NaN or infinity"),
        (ValueError, {"features": VALID, "temperature": 1e-40}, "features / temperature is too large"),
        (ValueError, {"features": VALID[0]}, r"features must be \[B, V, D\].*got shape \[2, 8\]"),
        (ValueError, {"features": VALID[:0]}, r"features must be \[B, V, D\].*got shape \[0, 2, 8\]"),
        (ValueError, {"features": VALID * math.nan}, "features must be finite, got NaN or infinity"),
        (ValueError, {"features": VALID * math.inf}, "features must be finite, got NaN or infinity"),
        (ValueError, {"features": VALID * 1e30}, "features / temperature is too large: the logits overflow"),
        (TypeError, {"temperature": torch.ones(1)}, "temperature must be a number, got Tensor"),
        (ValueError, {"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        (ValueError, {"base_temperature": math.nan}, "base_temperature must be positive and finite, got nan"),
        (ValueError, {"contrast_mode": "some"}, "contrast_mode must be 'all' or 'one', got 'some'"),
        (ValueError, {"impl": "fast"}, "impl must be 'auto', 'fused' or 'reference', got 'fast'"),
        (
            ValueError,
            {"mask": torch.ones(4, 3)},
            r"mask must be real and \[B, B\] = \[4, 4\], got torch.float32 \[4, 3\]",
        ),
        (ValueError, {"mask": torch.full((4, 4), math.nan)}, "mask must be finite and not negative"),
        (ValueError, {"mask": torch.ones(4, 4, requires_grad=True)}, "mask must not require a gradient"),
        (ValueError, {"mask": -torch.ones(4, 4)}, "mask must be finite and not negative"),
        (
            ValueError,
            {"label_sets": [LabelSet(torch.zeros(3), Equal())]},
            "labels must have one value per sample, B = 4, got 3",
        ),
        (
            ValueError,
            {"label_sets": [LabelSet(torch.zeros(4), Equal())], "mask": torch.ones(4, 4)},
            "labels and mask cannot be given together",
        ),
        (
            ValueError,
            {"label_sets": [LabelSet(torch.zeros(4, device="meta"), Equal())]},
            "labels must be on the device of features, cpu, got meta",
        ),
        (
            ValueError,
            {"mask": torch.ones(4, 4, device="meta")},
            "mask must be on the device of features, cpu, got meta",
        ),
    ],
)
def test_a_wrong_argument_is_named(impl, error, arguments, message):
    with pytest.raises(error, match=message):
        supcon_loss(**({"features": VALID, "impl": impl} | arguments))

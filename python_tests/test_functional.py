"""The fused kernels against the float64 reference, on every instruction set this processor runs."""

import functools
import math
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from cases import VARIANTS
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from mmcuda._native import extension
from mmcuda.functional import cross_contrast_loss, pair_margin_loss, supcon_loss
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Within

pytestmark = pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or "")


class Tolerance(NamedTuple):
    """What the fused kernels may add to the error that the dense reference has itself at this dtype."""

    losses: float  # relative to the largest loss or to 1
    gradients: float  # relative to the largest entry or to the natural scale, see natural_scale()


TOLERANCES = {
    torch.float64: Tolerance(1e-11, 1e-10),
    torch.float32: Tolerance(1e-5, 2e-5),  # on CUDA factors are the sum of two TF32 numbers: 22 bits
    torch.bfloat16: Tolerance(1e-5, 1e-2),  # half precision has float32 losses, and gradients of 8 (11) bits
    torch.float16: Tolerance(1e-5, 1e-3),
}
DTYPES = [pytest.param(dtype, id=str(dtype).removeprefix("torch.")) for dtype in TOLERANCES]


# ---- comparing -----------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A loss function, the features that it is called with, and everything else."""

    function: object
    tensors: tuple[Tensor, ...]  # float64
    options: dict
    temperature: float | None = 0.1  # None: the loss has no temperature

    def outcome(self, dtype, impl, compute=None):
        """Return losses and gradients of features and temperature, of features rounded to dtype, computed in compute.

        The incoming gradient differs from anchor to anchor: a mean of losses would hide that two are exchanged.
        """
        tensors = [tensor.to(dtype).to(compute or dtype).requires_grad_() for tensor in self.tensors]
        options = self.options | {"reduction": "none", "impl": impl}
        wanted = list(tensors)
        if self.temperature is not None:
            options["temperature"] = torch.tensor(self.temperature, dtype=torch.float64, requires_grad=True)
            wanted.append(options["temperature"])
        losses = self.function(*tensors, **options)
        upstream = torch.linspace(0.5, 1.5, losses.numel(), dtype=losses.dtype).view(losses.shape) / losses.numel()
        gradients = torch.autograd.grad(losses, wanted, upstream)
        assert [gradient.dtype for gradient in gradients] == [tensor.dtype for tensor in wanted]
        return [losses.detach().double(), *(gradient.double() for gradient in gradients)]


def natural_scale(case):
    """Return the size of the terms that gradients are sums of: where these cancel, their rounding is left."""
    norm = max(tensor.norm(dim=-1).max().item() for tensor in case.tensors)
    if case.temperature is None:
        weight = sum(labels.weight for labels in case.options["attributes"])
        return [weight * norm / len(tensor) for tensor in case.tensors]
    count = case.tensors[0][..., 0].numel()
    return [*(norm / case.temperature / count for _ in case.tensors), (norm / case.temperature) ** 2]


def expected_and_allowed(case, dtype, growth=1):
    """Return the float64 reference's outcome, and how far from it the fused one may be.

    ``growth`` multiplies the tolerance of gradients, where logits are large: an error of 1e-7 of a logit is one of exp.
    """
    expected = case.outcome(dtype, "reference", torch.float64)
    dense = case.outcome(dtype, "reference")
    tolerance = TOLERANCES[dtype]
    allowed = []
    for want, peer, scale, factor in zip(
        expected,
        dense,
        [1.0, *natural_scale(case)],
        [tolerance.losses] + [growth * tolerance.gradients] * (len(expected) - 1),
        strict=True,
    ):
        allowed.append(float((peer - want).abs().max()) + factor * max(float(want.abs().max()), scale))
    return expected, allowed


def assert_close(case, dtype, expected, allowed, what=""):
    features = ["gradient of the anchors", "gradient of the keys"][: len(case.tensors)]
    names = ["losses", *features, "gradient of the temperature"]
    for name, value, want, limit in zip(names, case.outcome(dtype, "fused"), expected, allowed, strict=False):
        error = (value - want).abs().max().item()
        assert error <= limit, f"{what}: {name} off by {error:.2e}, more than {limit:.2e}"


def assert_equals_reference(case, dtype, what="", growth=1):
    assert_close(case, dtype, *expected_and_allowed(case, dtype, growth), what)


# ---- cases ---------------------------------------------------------------------------------------------------------


def unit(*shape):
    return normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def grades(size):
    return torch.randint(-1, 4, (size,))


def thickness(size):
    return (torch.rand(size, dtype=torch.float64) * 100).masked_fill(torch.rand(size) < 0.2, math.nan)


def findings(size):
    return torch.randint(-1, 2, (size, 40))


KINDS = {
    "equal": [(grades, Equal(), 1.0)],
    "within": [(thickness, Within(10.0), 1.0)],
    "rbf": [(thickness, Rbf(8.0), 1.0)],
    "overlap": [(findings, Overlap(), 1.0)],
    "several": [
        (grades, Equal(), 1.0),
        (thickness, Within(10.0), 0.5),
        (grades, Within(1), 0.0),
        (thickness, Rbf(8.0), 1.5),
        (findings, Overlap(), 0.7),
    ],
}
RELATIONS = [*KINDS, "mask", "own"]


def attributes_of(relation, size, keys=None):
    return [
        Attribute(values(size), kind, weight, keys=None if keys is None else values(keys))
        for values, kind, weight in KINDS[relation]
    ]


def related(relation, size, keys=None):
    """Return the arguments that say what makes positives, between `size` samples, or these and other `keys`."""
    if relation == "own":
        return {}
    if relation != "mask":
        return {"attributes": attributes_of(relation, size, keys)}
    mask = torch.rand(size, keys or size) * (torch.rand(size, keys or size) > 0.6)  # not symmetric
    mask[::5] = 0  # no positives
    mask[1::7] = 1  # no negatives
    return {"mask": mask.double()}


def self_case(relation, samples, views, d, **options):
    return Case(supcon_loss, (unit(samples, views, d),), related(relation, samples) | options)


def cross_case(relation, n, m, d, **options):
    if relation == "own":
        m = n
    return Case(cross_contrast_loss, (unit(n, d), unit(m, d)), related(relation, n, m) | options)


def slice_case(relation, n, m, d, offset, views=1, **options):
    """The anchors are keys offset .. offset + n."""
    keys = unit(m, d)
    options |= {"anchor_offset": offset, "views": views}
    anchors = keys[offset : offset + n].clone()
    return Case(cross_contrast_loss, (anchors, keys), related(relation, m // views) | options)


def margin_case(relation, n, m, d, margin=1.3):
    tensors = (unit(n, d),) if m is None else (unit(n, d), unit(m, d))
    options = {"attributes": attributes_of(relation, n, m), "margin": margin}
    if m is None:
        return Case(lambda anchors, **rest: pair_margin_loss(anchors, None, **rest), tensors, options, None)
    return Case(pair_margin_loss, tensors, options, None)


LAYOUTS = {
    "self": lambda relation, **options: self_case(relation, 101, 1, 33, **options),
    "views": lambda relation, **options: self_case(relation, 50, 3, 7, **options),
    "cross": lambda relation, **options: cross_case(relation, 97, 145, 20, **options),
    "symmetric": lambda relation, **options: cross_case(relation, 145, 47, 20, symmetric=True, **options),
    "slice": lambda relation, **options: slice_case(relation, 48, 140, 9, 20, views=2, **options),
    "slice_symmetric": lambda relation, **options: slice_case(relation, 99, 111, 9, 12, symmetric=True, **options),
}


# ---- tests ---------------------------------------------------------------------------------------------------------


@functools.cache
def prepared(cases, dtype, *arguments):
    """Return cases(*arguments) with their reference: every implementation is compared with the same."""
    torch.manual_seed(0)
    return [(what, case, *expected_and_allowed(case, dtype)) for what, case in cases(*arguments)]


def assert_all_equal_reference(cases, dtype, *arguments):
    for what, case, expected, allowed in prepared(cases, dtype, *arguments):
        assert_close(case, dtype, expected, allowed, what)


def variant_options(variant):
    return dict(zip(("positives", "denominator"), variant, strict=True))


def family(layout, variant):
    for relation in RELATIONS:
        yield relation, LAYOUTS[layout](relation, **variant_options(variant))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize("dtype", DTYPES)
def test_contrastive_losses(implementation, dtype, variant, layout):
    assert_all_equal_reference(family, dtype, layout, variant)


# around multiples of the sides of blocks (96) and micro-tiles (up to 48), single anchors, single features
SELF_SHAPES = [
    (1, 1, 3),
    (1, 2, 3),
    (2, 1, 1),
    (7, 2, 5),
    (47, 1, 8),
    (49, 1, 16),
    (95, 1, 8),
    (48, 2, 17),
    (97, 1, 1),
    (191, 1, 3),
    (193, 1, 32),
    (126, 2, 507),
    (289, 1, 2),
]
CROSS_SHAPES = [
    (1, 1, 3),
    (1, 97, 1),
    (97, 1, 5),
    (2, 193, 8),
    (47, 49, 16),
    (96, 96, 32),
    (95, 288, 7),
    (191, 48, 507),
    (289, 97, 3),
]
VARIANTS_AND_RELATIONS = list(zip(VARIANTS, ["several", "mask", "several", "own", "mask"], strict=True))


def self_contrast(shape):
    for variant, relation in VARIANTS_AND_RELATIONS:
        yield f"{variant} {relation}", self_case(relation, *shape, **variant_options(variant))


def cross_contrast(shape):
    n, m, d = shape
    fewer, more = sorted((n, m))
    for variant, relation in VARIANTS_AND_RELATIONS:
        options = variant_options(variant)
        yield f"{variant} {relation}", cross_case(relation, n, m, d, symmetric=True, **options)
        yield f"{variant} {relation} slice", slice_case(relation, fewer, more, d, offset=more - fewer, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SELF_SHAPES, ids=str)
def test_self_contrast_of_any_shape(implementation, shape, dtype):
    assert_all_equal_reference(self_contrast, dtype, shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", CROSS_SHAPES, ids=str)
def test_cross_contrast_of_any_shape(implementation, shape, dtype):
    assert_all_equal_reference(cross_contrast, dtype, shape)


def of_many_norms(norm, temperature, variant):
    """Rows whose norms are `norm` and less, down to a twentieth."""
    options = variant_options(variant)
    for what, case in [
        ("several", self_case("several", 75, 2, 64, **options)),
        ("mask", self_case("mask", 130, 1, 16, **options)),
        ("cross", cross_case("mask", 70, 130, 64, symmetric=True, **options)),
        ("slice", slice_case("several", 40, 130, 64, 60, **options)),
    ]:
        tensors = []
        for tensor in case.tensors:
            lengths = norm * torch.linspace(0.05, 1, len(tensor), dtype=torch.float64)
            tensors.append(tensor * lengths.view(-1, *[1] * (tensor.ndim - 1)))
        yield what, case._replace(tensors=tuple(tensors), temperature=temperature)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize(("norm", "temperature"), [(40.0, 1.0), (1.0, 0.005), (40.0, 0.07), (1e-3, 0.07), (1.0, 100.0)])
def test_range_of_the_logits(implementation, norm, temperature, variant, dtype):
    """exp of the largest logit overflows, and beside the largest of all an anchor's own would vanish."""
    assert_all_equal_reference(of_many_norms, dtype, norm, temperature, variant)


def largest_left_out(temperature, variant):
    """A anchor's largest logit, 40^2 / tau, is that of a pair with weight 0 in one of the sums.

    Row 0 has one positive, far away; anchor 1 one negative, far away; anchor 2 only negatives, anchor 3 only positives.
    """
    features = unit(100, 1, 24)
    features[:10] = 40 * features[:1] + 0.1 * unit(10, 1, 24)
    mask = (torch.rand(100, 100) < 0.5).double()
    mask[0], mask[1], mask[2], mask[3] = 0, 1, 0, 1
    mask[0, 50], mask[1, 50] = 1, 0
    options = {"mask": mask} | variant_options(variant)
    yield "self", Case(supcon_loss, (features,), options, temperature)
    tensors = (features[:, 0], features.flip(0)[:90, 0])
    yield "cross", Case(cross_contrast_loss, tensors, options | {"mask": mask[:, :90]}, temperature)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize("temperature", [1.0, 0.005])
def test_largest_logit_does_not_swallow_sums_that_it_is_not_in(implementation, temperature, variant, dtype):
    assert_all_equal_reference(largest_left_out, dtype, temperature, variant)


def constant_features(variant):
    features = torch.ones(130, 1, 16, dtype=torch.float64) / 4
    options = related("several", 130) | variant_options(variant)
    yield "equal", Case(supcon_loss, (features,), options)
    yield "zero", Case(supcon_loss, (0 * features,), options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_nothing_but_cancellation(implementation, variant, dtype):
    assert_all_equal_reference(constant_features, dtype, variant)


@pytest.mark.parametrize("temperature", [0.07, 0.01])
def test_collapsed_features_keep_their_digits(implementation, temperature):
    """All logits nearly equal and near 1 / tau: an error of the long sums would be magnified by 1 / tau."""
    direction = torch.randn(64)
    features = normalize(20 * direction + torch.randn(512, 2, 64), dim=-1)
    arguments = {"attributes": [Attribute(torch.arange(512) % 50, Equal())], "temperature": temperature}
    expected = supcon_loss(features.double(), impl="reference", **arguments)
    torch.testing.assert_close(supcon_loss(features, impl="fused", **arguments).double(), expected, rtol=5e-7, atol=0)


def scaled_mask(scale):
    mask = (torch.rand(70, 70) * (torch.rand(70, 70) > 0.6) * scale).double()
    for positives in ("out", "in"):
        yield positives, Case(supcon_loss, (unit(70, 2, 16),), {"mask": mask, "positives": positives})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scale_of_the_mask_does_not_matter(implementation, scale, dtype):
    assert_all_equal_reference(scaled_mask, dtype, scale)


def far_beside_sigma(low, high):
    values = low + (high - low) * torch.rand(60, dtype=torch.float64)
    values = torch.cat([values, values + torch.randn(60, dtype=torch.float64)])
    yield "", Case(supcon_loss, (unit(120, 1, 16),), {"attributes": [Attribute(values, Rbf(1.0))]})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), [(0, 10_000), (19_000, 20_000)])
def test_rbf_of_values_that_are_large_beside_sigma(implementation, low, high, dtype):
    """As days since 1970: what counts is the difference of two values, not their size."""
    assert_all_equal_reference(far_beside_sigma, dtype, low, high)


def outlier(value):
    values = torch.tensor([0, 1, 2, 3, value, value], dtype=torch.float64)
    yield "", Case(supcon_loss, (unit(6, 1, 16),), {"attributes": [Attribute(values, Rbf(1.0))]})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [1e6, 1e18, 1e300])
def test_rbf_of_one_value_is_not_blurred_by_another_far_away(implementation, value, dtype):
    assert_all_equal_reference(outlier, dtype, value)


def margins():
    for relation in KINDS:
        for n, m, d in [(101, None, 33), (97, 145, 20), (145, 47, 8), (1, None, 3), (1, 1, 1), (2, 96, 507)]:
            yield f"{relation} {n} {m} {d}", margin_case(relation, n, m, d)
    yield "no margin", margin_case("equal", 70, 130, 5, margin=0.0)
    far = margin_case("several", 70, 130, 5, margin=30.0)
    yield "large distances", far._replace(tensors=tuple(8 * tensor for tensor in far.tensors))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pair_margin_loss(implementation, dtype):
    assert_all_equal_reference(margins, dtype)


def near_duplicates(apart):
    anchors = unit(100, 16)
    keys = torch.cat([anchors, anchors[:20]]) + apart * torch.randn(120, 16, dtype=torch.float64)
    yield "cross", margin_case("equal", 100, 120, 16)._replace(tensors=(anchors, keys))
    yield "self", margin_case("equal", 120, None, 16)._replace(tensors=(keys,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("apart", [0.0, 1e-4, 0.02])
def test_pair_margin_of_near_duplicates(implementation, dtype, apart):
    """||x||^2 + ||y||^2 - 2 x.y has no digits of a small distance, and their force is strong where they repel."""
    assert_all_equal_reference(near_duplicates, dtype, apart)


def far_from_the_origin():
    features = 20 * unit(1, 16) + 0.3 * torch.randn(120, 16, dtype=torch.float64)
    yield "", margin_case("equal", 120, None, 16, margin=1.5)._replace(tensors=(features,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pair_margin_far_from_the_origin(implementation, dtype):
    assert_all_equal_reference(far_from_the_origin, dtype)


# Contiguity: what a tensor may look like behind the same values.
MEMORY = {
    "contiguous": lambda x: x.contiguous(),
    "strided": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "expanded": lambda x: x[:1].expand_as(x),
    "offset": lambda x: torch.cat([x[:1], x])[1:],
}


@settings(max_examples=200)
@given(data=st.data())
def test_anything(data):
    """Sizes, layouts in memory, dtypes, variants and relations as they come."""
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from(list(TOLERANCES)))
    options = variant_options(draw(st.sampled_from(VARIANTS)))
    d = draw(st.integers(1, 40))
    memory = draw(st.sampled_from(list(MEMORY)))
    relation = draw(st.sampled_from(RELATIONS))
    layout = draw(st.sampled_from(["self", "cross", "slice"]))
    size = st.integers(1, 110)
    if layout == "self":
        case = self_case(relation, draw(size), draw(st.integers(1, 3)), d, **options)
    elif layout == "cross":
        case = cross_case(relation, draw(size), draw(size), d, symmetric=draw(st.booleans()), **options)
    else:
        views = draw(st.integers(1, 3))
        samples = draw(st.integers(1, 60))
        n = draw(st.integers(1, samples))
        offset = draw(st.integers(0, samples - n))
        options["symmetric"] = draw(st.booleans())
        case = slice_case(relation, n * views, samples * views, d, offset * views, views, **options)
    scale = draw(st.sampled_from([1.0, 0.01, 6.0]))
    # Where 1 - r of one or two soft positives is all that is negative, the rounding of r is a large part of it.
    few = min(tensor[..., 0].numel() for tensor in case.tensors) <= 3
    assume(not (few and relation in ("rbf", "several") and options["denominator"] != "all"))
    case = case._replace(tensors=tuple(MEMORY[memory](scale * tensor) for tensor in case.tensors))
    assert_equals_reference(case, dtype, growth=4 if scale > 1 else 1)


@given(
    samples=st.integers(1, 40),
    views=st.integers(1, 3),
    grade=st.lists(st.integers(-1, 3), min_size=40, max_size=40),
    values=st.lists(
        st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.1, 0.2, 0.3]), st.floats(-1e300, 1e300)),
        min_size=40,
        max_size=40,
    ),
    tolerance=st.sampled_from([0.0, 0.1, 1.0, 1e290]),
    cells=st.integers(1, 70),
    variant=st.sampled_from(VARIANTS),
)
def test_any_labels(samples, views, grade, values, tolerance, cells, variant):
    torch.manual_seed(samples + cells)
    attributes = [
        Attribute(torch.tensor(grade[:samples]), Equal(), 0.7),
        Attribute(torch.tensor(values[:samples], dtype=torch.float64), Within(tolerance), 1.3),
        Attribute(torch.tensor(grade[:samples]), Rbf(2.0)),
        Attribute(torch.randint(-1, 2, (samples, cells)), Overlap(), 0.4),
    ]
    options = {"attributes": attributes} | variant_options(variant)
    assert_equals_reference(Case(supcon_loss, (unit(samples, views, 5),), options), torch.float64)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_layout_does_not_matter(memory, dtype):
    for case in (self_case("several", 30, 4, 10), cross_case("several", 50, 99, 10), margin_case("several", 40, 99, 6)):
        case = case._replace(tensors=tuple(MEMORY[memory](tensor) for tensor in case.tensors))
        assert_equals_reference(case, dtype)


def test_identifiers_of_64_bits_are_told_apart():
    """Hashed patient ids differ in the last bit, which a float64 would lose."""
    big = 2**62
    attributes = [Attribute(torch.tensor([big, big + 1, big, big + 1]), Equal())]
    assert_equals_reference(Case(supcon_loss, (unit(4, 1, 8),), {"attributes": attributes}), torch.float64)


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "has_positives"])
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_no_positives_anywhere_is_zero(impl, reduction, variant):
    features = unit(6, 1, 8).requires_grad_()
    options = variant_options(variant) | {"reduction": reduction, "impl": impl}
    for labels in (torch.arange(6), torch.full((6,), -1)):
        loss = supcon_loss(features, [Attribute(labels, Equal())], **options)
        assert loss == 0
        assert torch.count_nonzero(torch.autograd.grad(loss, features)[0]) == 0
    loss = supcon_loss(features[:1], **options)  # a single anchor
    assert loss == 0
    assert torch.count_nonzero(torch.autograd.grad(loss, features)[0]) == 0


def test_all_labels_missing_is_simclr():
    features = unit(9, 2, 8)
    missing = [Attribute(torch.full((9,), math.nan), Within(3.0))]
    torch.testing.assert_close(supcon_loss(features, missing), supcon_loss(features))


@pytest.mark.parametrize("reduction", ["none", "mean", "has_positives", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions(reduction, weighted):
    """They are the reference's; with weights, with anchors without positives, with the first views as anchors."""
    features, weights = unit(40, 2, 8), torch.rand(80, dtype=torch.float64)
    attributes = [Attribute(grades(40), Equal()), Attribute(thickness(40), Rbf(2.0), 0.0)]
    crossed = [
        Attribute(grades(80), Equal(), keys=grades(30)),
        Attribute(findings(80), Overlap(), keys=findings(30)),
    ]
    for function, tensors, options, count in [
        (supcon_loss, (features,), {"attributes": attributes}, 40),
        (supcon_loss, (features[:, :1],), {"attributes": attributes}, 40),
        (supcon_loss, (features,), {"attributes": attributes, "contrast_mode": "one", "base_temperature": 0.2}, 40),
        (cross_contrast_loss, (features.flatten(0, 1), unit(30, 8)), {"attributes": crossed}, 80),
        (pair_margin_loss, (features.flatten(0, 1), unit(30, 8)), {"attributes": crossed}, None),
    ]:
        if weighted and count is not None:
            options["anchor_weights"] = weights[:count]
        fused, expected = (
            function(*tensors, **options, reduction=reduction, impl=impl) for impl in ("fused", "reference")
        )
        torch.testing.assert_close(fused, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_a_float32_loss_and_its_own_gradient(dtype):
    features = unit(20, 2, 16).to(dtype).requires_grad_()
    loss = supcon_loss(features, impl="fused")
    loss.backward()
    assert loss.dtype == torch.float32
    assert features.grad.dtype == dtype
    torch.testing.assert_close(loss, supcon_loss(features.detach().float(), impl="reference"), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_temperature_of_any_dtype(dtype):
    """The logit scale of a model in half precision is in half precision."""
    temperature = torch.tensor(0.125, dtype=dtype, requires_grad=True)
    features = unit(20, 2, 16).float()
    gradients = [
        torch.autograd.grad(supcon_loss(features, temperature=temperature, impl=impl), temperature)[0]
        for impl in ("fused", "reference")
    ]
    assert gradients[0].dtype == dtype
    torch.testing.assert_close(*gradients)


@functools.cache
def not_finite(value, variant):
    """Return (what, case, float64 losses of the reference), one feature being `value`."""
    options = variant_options(variant)
    found = []
    for what, case, bad in [
        ("self", self_case("equal", 99, 1, 5, **options), 0),
        ("anchor", cross_case("several", 99, 50, 5, **options), 0),
        ("key", cross_case("several", 99, 50, 5, **options), 1),
        ("anchor, both ways", cross_case("within", 50, 99, 5, symmetric=True, **options), 0),
        ("key, both ways", cross_case("within", 50, 99, 5, symmetric=True, **options), 1),
        ("slice", slice_case("equal", 20, 99, 5, 40, symmetric=True, **options), 1),
        ("margin", margin_case("equal", 99, None, 5), 0),
        ("margin, key", margin_case("equal", 99, 50, 5), 1),
    ]:
        # Values of 8 bits, so that every dtype computes the same losses.
        case = case._replace(tensors=tuple(tensor.bfloat16().double() for tensor in case.tensors))
        case.tensors[bad].view(-1, 5)[17, 3] = value
        found.append((what, case, case.outcome(torch.float64, "reference")[0]))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_give_nan(implementation, value, variant, dtype):
    """Where the reference's loss is NaN, anchor by anchor; a NaN feature leaves the other losses as they are."""
    for what, case, expected in not_finite(value, variant):
        losses, *gradients = case.outcome(dtype, "fused")
        assert losses[expected.isnan()].isnan().all(), what
        for gradient, wanted in zip(gradients, case.outcome(torch.float64, "reference")[1:], strict=True):
            assert gradient[wanted.isnan()].isnan().all(), what
        if math.isnan(value):
            torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4, equal_nan=True, msg=what)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_logits_that_overflow_give_nan(implementation, dtype):
    features = unit(10, 2, 8).to(dtype) * 1e30
    scale = 1e150 if dtype == torch.float64 else 1.0
    assert supcon_loss(features * scale, impl="fused").isnan()
    assert supcon_loss(features / 1e30, temperature=1e-320 if dtype == torch.float64 else 1e-40, impl="fused").isnan()


def bits_cases():
    return [
        self_case("several", 401, 2, 40),
        self_case("mask", 301, 1, 24, positives="in", denominator="negatives"),
        cross_case("several", 500, 301, 40, symmetric=True, denominator="sincere"),
        slice_case("equal", 100, 700, 16, 300),
        margin_case("several", 301, 400, 24),
        margin_case("several", 401, None, 24),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_or_on_the_run(dtype):
    threads = torch.get_num_threads()
    for index, case in enumerate(bits_cases()):
        results = []
        try:
            for count in (1, 2, 3, 8, 2, 2):
                torch.set_num_threads(count)
                results.append(case.outcome(dtype, "fused"))
        finally:
            torch.set_num_threads(threads)
        for other in results[1:]:
            assert all(torch.equal(*both) for both in zip(other, results[0], strict=True)), index


PEAK = """
import resource, torch
from mmcuda.functional import *
from mmcuda.relations import *

def step(n):
    x, y = (torch.nn.functional.normalize(torch.randn(n, 16), dim=-1).requires_grad_() for _ in range(2))
    grade, acuity, findings = torch.arange(n) % 100, torch.rand(n), torch.randint(0, 2, (n, 20))
    {call}.backward()

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
step(100)
before = peak()
step(20_000)
print(peak() - before)
"""
CALLS = {
    "self": "supcon_loss(x[:, None], [Attribute(grade, Equal()), Attribute(acuity, Rbf(0.01))], impl='fused')",
    "cross": "cross_contrast_loss(x, y, [Attribute(grade, Equal(), keys=grade)], symmetric=True, impl='fused')",
    "margin": "pair_margin_loss(x, None, [Attribute(findings, Overlap())], impl='fused')",
}


@pytest.mark.parametrize("call", CALLS)
def test_nothing_of_size_n_times_n_is_stored(call):
    """Of 20 000 anchors such a matrix has 1600 MB; forward and backward together need less than 100."""
    script = PEAK.replace("{call}", CALLS[call])
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 100


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize("mode", ["all", "one"])
def test_supcon_loss_takes_embeddings_and_views_of_any_shape(mode, impl):
    """[N, D] is one view of each sample; dimensions beyond [B, V] are one."""
    attributes, options = attributes_of("equal", 12), {"reduction": "none", "contrast_mode": mode, "impl": impl}
    x = unit(12, 8)
    losses = supcon_loss(x, attributes, **options)
    assert losses.shape == (12,)
    assert torch.equal(losses, supcon_loss(x[:, None], attributes, **options).flatten())
    views = unit(12, 3, 2, 4)
    losses = supcon_loss(views, attributes, **options)
    assert losses.shape == ((12, 3) if mode == "all" else (12,))
    assert torch.equal(losses, supcon_loss(views.flatten(2), attributes, **options))

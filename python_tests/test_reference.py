"""The dense reference against the formulas, written once more as loops over pairs, and against known values."""

import itertools
import math

import pytest
import torch
from cases import VARIANTS
from torch.nn.functional import normalize

from mmcuda._native import extension, reference
from mmcuda.functional import cross_contrast_loss, pair_margin_loss, supcon_loss
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Within

KINDS = ["equal", "within", "rbf", "overlap", "several", "mask", "none"]
# keys against anchors: name, views, anchor_offset in samples (None: other samples), both ways
LAYOUTS = {
    "self": (2, 0, False),
    "cross": (1, None, False),
    "cross, both ways": (1, None, True),
    "slice": (2, 2, False),
    "slice, both ways": (1, 1, True),
}
NAN = math.nan


# the formulas; a missing value is NaN, of which every comparison is false


def equal(a, b):
    return float(a == b)


def within(a, b):
    return float(abs(a - b) <= 25)


def rbf(a, b):
    return math.exp(-((a - b) ** 2) / (2 * 10.0**2)) if abs(a - b) <= 60 else 0.0


def overlap(a, b):
    known = [(x, y) for x, y in zip(a, b, strict=True) if x in (0, 1) and y in (0, 1)]
    either = sum(x or y for x, y in known)
    return sum(x and y for x, y in known) / either if either else float(bool(known))


RELATED = {Equal: equal, Within: within, Rbf: rbf, Overlap: overlap}


def values_of(values, samples):
    """(value, sample) of each sample, with NaN for a missing value."""
    integers = not values.is_floating_point()
    known = [NAN if v == math.inf or (integers and v == -1) else v for v in values.tolist()]
    return list(zip(known, samples, strict=False))


def relation_by_loops(labels, anchors, keys):
    """r(i, j) of samples; ``anchors`` and ``keys`` are lists of (values, sample), equal samples are always related."""
    related = RELATED[type(labels.relation)]
    return [[1.0 if s == t else related(a, b) for b, t in keys] for a, s in anchors]


def anchor_loss(s, r, positives, denominator):
    """One anchor, one attribute: ``s`` and ``r`` are its logits and relations to the allowed others."""
    n = sum(r)
    outsiders = sum((1 - b) * math.exp(a) for a, b in zip(s, r, strict=True))
    if n == 0 or (denominator == "negatives" and outsiders == 0):
        return 0.0
    if denominator == "sincere":
        return sum(b / n * (math.log(math.exp(a) + outsiders) - a) for a, b in zip(s, r, strict=True))
    push = math.log(sum(math.exp(a) for a in s) if denominator == "all" else outsiders)
    if positives == "out":
        return push - sum(a * b for a, b in zip(s, r, strict=True)) / n
    return push - math.log(sum(b * math.exp(a) for a, b in zip(s, r, strict=True)) / n)


def losses_by_loops(x, y, relations, weights, tau, offset, positives, denominator):
    """The losses of the anchors; relations are [K][N][M]; pair j == i + offset is left out."""
    losses = []
    for i in range(len(x)):
        allowed = [j for j in range(len(y)) if offset is None or j != i + offset]
        s = [sum(a * b for a, b in zip(x[i], y[j], strict=True)) / tau for j in allowed]
        each = [anchor_loss(s, [r[i][j] for j in allowed], positives, denominator) for r in relations]
        losses.append(sum(w * loss for w, loss in zip(weights, each, strict=True)))
    return losses


def margin_by_loops(x, y, relations, weights, margin, offset):
    losses = []
    for i in range(len(x)):
        pairs = []
        for j in range(len(y)):
            if offset is None or j != i + offset:
                related = sum(w * r[i][j] for w, r in zip(weights, relations, strict=True))
                d = math.dist(x[i], y[j])
                pairs.append(related * d**2 + (sum(weights) - related) * max(0.0, margin - d) ** 2)
        losses.append(sum(pairs) / len(pairs) if pairs else 0.0)
    return losses


# attributes of the tests


def attributes_of(kind, anchors, keys):
    """Label sets with missing values; the keys' values only where they are other samples."""
    grade = torch.tensor([0, 1, 0, -1, 2, -1, 1, 0])
    thickness = torch.tensor([250.0, 260.0, NAN, 285.0, 250.0, 310.0, math.inf, 400.0], dtype=torch.float64)
    letters = torch.tensor([50, 62, 55, -1, 120, 110, 50, -1])
    biomarkers = torch.tensor(
        [[1, 0, 1], [1, 1, -1], [0, 0, 0], [-1, -1, -1], [0, 0, -1], [1, -1, 1], [0, 1, 0], [1, 0, 1]]
    )

    def attribute(values, relation, weight=1.0):
        others = None if keys is None else values.flip(0)[:keys]
        return Attribute(values[:anchors], relation, weight, keys=others)

    return {
        "equal": [attribute(grade, Equal())],
        "within": [attribute(thickness, Within(25.0))],
        "rbf": [attribute(letters, Rbf(10.0))],
        "overlap": [attribute(biomarkers, Overlap())],
        "several": [
            attribute(grade, Equal(), 0.5),
            attribute(thickness, Within(25.0), 2.0),
            attribute(grade, Equal(), 0.0),
            attribute(letters.double(), Rbf(10.0)),
        ],
        "none": [],
    }[kind]


def relations_by_loops(kind, attributes, mask, anchors, keys, views, offset, m):
    """[K][N][M] and weights; ``anchors`` and ``keys`` are numbers of samples, ``offset`` counts samples."""
    if kind == "mask":
        whole, weights = [mask.tolist()], [1.0]
    elif kind == "none":
        whole, weights = [torch.eye(keys).tolist()], [1.0]
    else:
        whole, weights = [], [labels.weight for labels in attributes]
        for labels in attributes:
            values = values_of(labels.values, range(100))
            others = values
            if labels.keys is not None:
                others = values_of(labels.keys, range(100, 200))
            whole.append(relation_by_loops(labels, values, others))
    first = offset or 0
    n = anchors * views
    return [[[r[first + i // views][j // views] for j in range(m)] for i in range(n)] for r in whole], weights


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("positives", "denominator"), VARIANTS)
def test_reference_equals_the_formulas(positives, denominator, kind, layout):
    views, offset, symmetric = LAYOUTS[layout]
    keys = {"self": 7, "slice": 6, "slice, both ways": 6}.get(layout, 7 if kind == "none" else 5)
    anchors = {"slice": 3, "slice, both ways": 4}.get(layout, 7)
    y = normalize(torch.randn(keys * views, 4, dtype=torch.float64), dim=-1)
    if offset is None:
        x = normalize(torch.randn(anchors, 4, dtype=torch.float64), dim=-1)
        attributes = [] if kind == "mask" else attributes_of(kind, anchors, keys)
        mask = torch.rand(anchors, keys, dtype=torch.float64)
    else:
        x = y[offset * views : (offset + anchors) * views]
        attributes = [] if kind == "mask" else attributes_of(kind, keys, None)
        mask = torch.rand(keys, keys, dtype=torch.float64)
    mask = mask * (torch.rand(mask.shape) < 0.6)  # soft, asymmetric
    mask[0], mask[2] = 0, 1  # an anchor without positives, one without negatives
    relations, weights = relations_by_loops(kind, attributes, mask, anchors, keys, views, offset, len(y))
    item_offset = None if offset is None else offset * views

    arguments = (0.3, item_offset, positives, denominator)
    expected = losses_by_loops(x.tolist(), y.tolist(), relations, weights, *arguments)
    if symmetric:
        transposed = [list(zip(*r, strict=True)) for r in relations]
        backwards = (0.3, None if item_offset is None else -item_offset, positives, denominator)
        expected += losses_by_loops(y.tolist(), x.tolist(), transposed, weights, *backwards)
    expected = torch.tensor(expected, dtype=torch.float64)

    settings = {
        "mask": mask if kind == "mask" else None,
        "temperature": 0.3,
        "positives": positives,
        "denominator": denominator,
        "reduction": "none",
        "impl": "reference",
    }
    x = x.clone().requires_grad_()
    if layout == "self":
        got = supcon_loss(x.unflatten(0, (anchors, views)), attributes, **settings).flatten()
    else:
        got = cross_contrast_loss(
            x, y, attributes, anchor_offset=item_offset, views=views, symmetric=symmetric, **settings
        )
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    (grad,) = torch.autograd.grad(got.sum(), x)
    assert grad.isfinite().all()


@pytest.mark.parametrize("layout", ["self", "cross"])
@pytest.mark.parametrize("kind", ["equal", "within", "rbf", "overlap", "several"])
def test_pair_margin_equals_the_formula(kind, layout):
    x = torch.randn(7, 4, dtype=torch.float64)
    x[3] = x[1]  # distance 0
    y = x if layout == "self" else torch.randn(5, 4, dtype=torch.float64)
    attributes = attributes_of(kind, 7, None if layout == "self" else 5)
    offset = 0 if layout == "self" else None
    relations, weights = relations_by_loops(kind, attributes, None, 7, len(y), 1, offset, len(y))
    expected = margin_by_loops(x.tolist(), y.tolist(), relations, weights, 2.5, offset)
    x = x.clone().requires_grad_()
    keys = None if layout == "self" else y
    got = pair_margin_loss(x, keys, attributes, margin=2.5, reduction="none", impl="reference")
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))
    (grad,) = torch.autograd.grad(got.sum(), x)
    assert grad.isfinite().all()


# known values and derivatives


def test_two_orthogonal_pairs():
    """Views identical, samples orthogonal, tau = 1: every anchor sees logits 1, 0, 0."""
    z = torch.eye(2, dtype=torch.float64).repeat_interleave(2, 0)
    same = torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    expected = {"all": math.log(math.e + 2) - 1, "negatives": math.log(2) - 1, "sincere": math.log(math.e + 2) - 1}
    for denominator, value in expected.items():
        losses = reference.contrastive_losses(z, z, [same], [1.0], 1.0, 0, denominator=denominator)
        torch.testing.assert_close(losses, torch.full((4,), value, dtype=torch.float64))


def test_pair_margin_of_three_points():
    """On a line at 0, 1 and 4, the first two related, margin 5: 1, 1 and the mean of (5 - 4)^2 and (5 - 3)^2."""
    x = torch.tensor([[0.0], [1.0], [4.0]])
    loss = pair_margin_loss(x, None, [Attribute(torch.tensor([7, 7, 8]), Equal())], margin=5.0, reduction="none")
    torch.testing.assert_close(loss, torch.tensor([(1 + 1) / 2, (1 + 4) / 2, (1 + 4) / 2]))


def arguments_of_reference(dtype=torch.float64):
    x = normalize(torch.randn(6, 3, dtype=dtype), dim=-1)
    y = normalize(torch.randn(5, 3, dtype=dtype), dim=-1)
    hard = torch.rand(6, 5) < 0.4
    hard[0], hard[1] = False, True  # without positives, without negatives
    return x, y, [hard, torch.rand(6, 5, dtype=dtype) * hard], [1.0, 0.5]


@pytest.mark.parametrize(("positives", "denominator"), VARIANTS)
def test_derivatives_also_of_the_temperature(positives, denominator):
    x, y, relations, weights = arguments_of_reference()

    def losses(x, y, tau):
        return reference.contrastive_losses(x, y, relations, weights, tau, None, positives, denominator, True)

    inputs = [x.requires_grad_(), y.requires_grad_(), torch.tensor(0.2, dtype=torch.float64, requires_grad=True)]
    assert torch.autograd.gradcheck(losses, inputs)
    assert torch.autograd.gradgradcheck(losses, inputs)


def test_derivatives_of_the_pair_margin():
    x, y, relations, weights = arguments_of_reference()
    inputs = [x.requires_grad_(), y.requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, y: reference.pair_margin_losses(x, y, relations, weights, 1.5), inputs)


@pytest.mark.parametrize(("positives", "denominator"), VARIANTS)
def test_anchors_without_positives_or_negatives_have_no_gradient(positives, denominator):
    x, y, _, _ = arguments_of_reference()
    for relation in (torch.zeros(6, 5), torch.ones(6, 5)):
        x = x.detach().requires_grad_()
        losses = reference.contrastive_losses(
            x, y, [relation], [1.0], 0.1, None, positives=positives, denominator=denominator
        )
        (grad,) = torch.autograd.grad(losses.sum(), x)
        assert grad.isfinite().all()
        if not relation.any() or denominator != "all":
            assert torch.count_nonzero(losses) == torch.count_nonzero(grad) == 0


@pytest.mark.parametrize(("positives", "denominator"), VARIANTS)
def test_large_logits_do_not_overflow(positives, denominator):
    x, y, relations, weights = arguments_of_reference(torch.float32)
    arguments = (relations, weights, 1e-4, None, positives, denominator)
    losses = reference.contrastive_losses(x, y, *arguments)
    expected = reference.contrastive_losses(x.double(), y.double(), *arguments)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize(("positives", "denominator"), VARIANTS)
def test_transforms(positives, denominator):
    features = normalize(torch.randn(3, 5, 2, 4, dtype=torch.float64), dim=-1)
    attributes = [*attributes_of("several", 5, None), *attributes_of("overlap", 5, None)]

    def loss(z, temperature=0.1):
        return supcon_loss(
            z,
            attributes,
            temperature=temperature,
            positives=positives,
            denominator=denominator,
            reduction="has_positives",
            base_temperature=0.2,
        )

    losses = torch.func.vmap(loss)(features)
    torch.testing.assert_close(losses, torch.stack([loss(z) for z in features]))
    gradients = torch.func.vmap(torch.func.grad(loss))(features)
    for z, gradient in zip(features, gradients, strict=True):
        z = z.clone().requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(loss(z), z)[0], gradient)
    tau = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    slope = torch.func.grad(loss, argnums=1)(features[0], tau.detach())
    torch.testing.assert_close(torch.autograd.grad(loss(features[0], tau), tau)[0], slope)


def test_transforms_of_the_pair_margin():
    features = torch.randn(3, 5, 4)
    attributes = attributes_of("rbf", 5, None)
    losses = torch.func.vmap(lambda z: pair_margin_loss(z, None, attributes, reduction="has_positives"))(features)
    each = [pair_margin_loss(z, None, attributes, reduction="has_positives", impl="reference") for z in features]
    torch.testing.assert_close(losses, torch.stack(each))


# reductions and the rest of functional.py on the reference


def reduced(reduction, losses, weights, has_positives):
    if reduction == "none":
        return losses * weights
    if reduction == "sum":
        return (losses * weights).sum()
    counted = weights * has_positives if reduction == "has_positives" else weights
    return (losses * counted).sum() / counted.sum() if counted.sum() > 0 else losses.new_zeros(())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "has_positives", "sum"])
def test_reductions(reduction, weighted):
    arguments = {"temperature": 0.2, "impl": "reference"}
    z = normalize(torch.randn(7, 2, 4, dtype=torch.float64), dim=-1)
    a = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0, 0.0]) if weighted else None
    ones = torch.ones(7, dtype=torch.float64) if a is None else a.double()

    mask = (torch.rand(7, 7) < 0.3).double()
    mask[4] = 0
    has_positives = torch.tensor([bool(mask[i].sum() > 0) for i in range(7)])  # two views: the own one counts
    for mode, first in (("all", slice(None)), ("one", 0)):
        losses = supcon_loss(z, mask=mask, reduction="none", **arguments)[:, first]
        got = supcon_loss(z, mask=mask, reduction=reduction, contrast_mode=mode, anchor_weights=a, **arguments)
        by_anchor = [t[:, None].expand(7, 2)[:, first] for t in (ones, has_positives)]
        torch.testing.assert_close(got, reduced(reduction, losses, *by_anchor))

    x, y = z[:, 0], z[:4, 1]
    labels = [Attribute(torch.arange(7), Equal(), keys=torch.tensor([5, 3, 3, 9]))]
    has_positives = torch.tensor([i in (5, 3) for i in range(7)] + [True, True, True, False])
    for symmetric in (False, True):
        items = 11 if symmetric else 7
        settings = {"symmetric": symmetric, **arguments}
        a = torch.arange(items) % 3 if weighted else None  # integers
        ones = torch.ones(items, dtype=torch.float64) if a is None else a.double()
        losses = cross_contrast_loss(x, y, labels, reduction="none", **settings)
        got = cross_contrast_loss(x, y, labels, reduction=reduction, anchor_weights=a, **settings)
        torch.testing.assert_close(got, reduced(reduction, losses, ones, has_positives[:items]))

    losses = pair_margin_loss(x, y, labels, reduction="none", impl="reference")
    got = pair_margin_loss(x, y, labels, reduction=reduction, impl="reference")
    torch.testing.assert_close(got, reduced(reduction, losses, torch.ones(7).double(), has_positives[:7]))


def test_an_attribute_of_weight_0_makes_no_positives():
    z = normalize(torch.randn(4, 1, 3), dim=-1)
    everything = Attribute(torch.zeros(4), Equal(), 0.0)
    two = Attribute(torch.tensor([0, 0, 1, 2]), Equal())
    losses = supcon_loss(z, [two], reduction="none", impl="reference")
    got = supcon_loss(z, [everything, two], reduction="has_positives", impl="reference")
    torch.testing.assert_close(got, losses[:2].mean())
    assert supcon_loss(z, [everything], reduction="has_positives", impl="reference") == 0


@pytest.mark.parametrize("reduction", ["mean", "has_positives"])
def test_no_anchor_that_counts_is_zero(reduction):
    z = normalize(torch.randn(4, 2, 3), dim=-1)
    nothing = torch.zeros(4, 4)
    arguments = {"reduction": reduction, "impl": "reference"}
    assert supcon_loss(z, mask=nothing, **arguments) == 0
    assert supcon_loss(z, anchor_weights=torch.zeros(4), **arguments) == 0


def test_temperature_is_learnable_and_scales():
    z = normalize(torch.randn(5, 2, 4), dim=-1)
    tau = torch.tensor(0.2, requires_grad=True)
    number = supcon_loss(z, temperature=0.2, base_temperature=0.1, impl="reference")
    tensor = supcon_loss(z, temperature=tau, base_temperature=0.1, impl="reference")
    torch.testing.assert_close(tensor, number)
    torch.testing.assert_close(number, 2 * supcon_loss(z, temperature=0.2, impl="reference"))
    (slope,) = torch.autograd.grad(tensor, tau)
    step = 1e-3
    up, down = (
        supcon_loss(z.double(), temperature=0.2 + s, base_temperature=0.1, impl="reference") for s in (step, -step)
    )
    torch.testing.assert_close(slope.double(), (up - down) / (2 * step), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_autocast(dtype):
    z = normalize(torch.randn(5, 2, 4), dim=-1).to(dtype).requires_grad_()
    sets = attributes_of("several", 5, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [
            supcon_loss(z, sets, impl="reference", temperature=torch.tensor(0.07, dtype=torch.float64)),
            cross_contrast_loss(z[:, 0], z[:, 1], impl="reference"),
            pair_margin_loss(z[:, 0], None, sets, impl="reference"),
        ]
    wide = z.detach().to(torch.promote_types(dtype, torch.float32))
    expected = [
        supcon_loss(wide, sets, impl="reference"),
        cross_contrast_loss(wide[:, 0], wide[:, 1], impl="reference"),
        pair_margin_loss(wide[:, 0], None, sets, impl="reference"),
    ]
    for got, want in zip(losses, expected, strict=True):
        torch.testing.assert_close(got, want)
    sum(losses).backward()
    assert z.grad.dtype == dtype


@pytest.mark.parametrize("denominator", ["all", "negatives", "sincere"])
def test_features_that_are_not_finite_give_nan(denominator):
    z = normalize(torch.randn(5, 2, 4), dim=-1)
    z[0, 0, 0] = NAN
    assert supcon_loss(z, denominator=denominator, impl="reference").isnan()


def test_single_row_is_zero():
    z = torch.ones(1, 1, 4, requires_grad=True)
    for loss in (
        supcon_loss(z, impl="reference"),
        pair_margin_loss(z[0], None, [Attribute(torch.zeros(1), Equal())], impl="reference"),
    ):
        assert loss == 0
        assert torch.count_nonzero(torch.autograd.grad(loss, z)[0]) == 0


@pytest.mark.parametrize("impl", ["reference", "fused"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_without_graph_breaks(dynamic, impl):
    if impl == "fused" and extension.native is None:
        pytest.skip(extension.missing_reason or "")
    tau = torch.tensor(0.1, requires_grad=True)

    def total(z, grade, thickness, biomarkers, mask):
        sets = [
            Attribute(grade, Equal()),
            Attribute(thickness, Rbf(10.0), 0.5),
            Attribute(biomarkers, Overlap()),
            Attribute(thickness, Within(10.0)),
        ]
        x, y = z[:, 0], z[:, 1]
        pairs = [Attribute(grade, Equal(), keys=grade.flip(0))]
        flat, settings = z.flatten(0, 1), {"impl": impl}
        return (
            supcon_loss(z, sets, temperature=tau, reduction="has_positives", anchor_weights=mask[0], **settings)
            + supcon_loss(z, mask=mask, denominator="negatives", contrast_mode="one", base_temperature=0.2, **settings)
            + cross_contrast_loss(x, y, pairs, symmetric=True, positives="in", **settings)
            + cross_contrast_loss(x, y, **settings)
            + cross_contrast_loss(flat[2:6], flat, sets, anchor_offset=2, views=2, denominator="sincere", **settings)
            + pair_margin_loss(x, y, pairs, **settings)
        )

    compiled = torch.compile(total, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for samples in (6, 9):
        z = normalize(torch.randn(samples, 2, 4), dim=-1)
        labels = (torch.arange(samples) % 3, 100 * torch.rand(samples), torch.randint(-1, 2, (samples, 40)))
        mask = torch.rand(samples, samples)
        results = []
        for function in (total, compiled):
            leaf = z.clone().requires_grad_()
            loss = function(leaf, *labels, mask)
            results.append((loss, *torch.autograd.grad(loss, [leaf, tau])))
        for got, expected in itertools.pairwise(results):
            torch.testing.assert_close(got, expected)

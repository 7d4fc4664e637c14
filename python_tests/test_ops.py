"""The operators of csrc/ops.cpp by themselves: opcheck, shapes without data, gradcheck, what they refuse."""

import math
import re

import pytest
import torch
from cases import VARIANTS
from torch._subclasses import FakeTensorMode
from torch.library import opcheck
from torch.nn.functional import normalize

from mmcuda._native import extension, ops, reference
from mmcuda._native.encode import LossInputs, dense_relations, encoded_relations
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Within

pytestmark = pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or "")

OPERATORS = torch.ops.mmcuda
# anchors, keys, anchor_offset, symmetric; of samples with 2 views where the anchors are keys
LAYOUTS = {
    "self": ((9, 2), None, 0, False),
    "cross": ((9,), (5,), None, False),
    "symmetric": ((9,), (5,), None, True),
    "slice": ((4, 2), (9, 2), 6, True),
}
D = 5


def features(*shape, dtype=torch.float64):
    return normalize(torch.randn(*shape, D), dim=-1).to(dtype)


def attributes(anchors, keys=None):
    """All relations, with missing values; without `keys` these are the anchors."""

    def values(size):
        thickness = (100 * torch.rand(size).double()).masked_fill(torch.arange(size) == 4, math.nan)
        return torch.arange(size) % 3 - 1, thickness, thickness, torch.randint(-1, 2, (size, 40))

    others = [None] * 4 if keys is None else values(keys)
    relations = (Equal(), Within(20.0), Rbf(9.0), Overlap())
    weights = (1.0, 0.5, 0.0, 2.0)
    return [Attribute(*each, keys=o) for *each, o in zip(values(anchors), relations, weights, others, strict=True)]


def inputs_of(layout, dtype=torch.float64, with_mask=False):
    rows_shape, columns_shape, offset, _ = LAYOUTS[layout]
    anchors = features(*rows_shape, dtype=dtype)
    keys = None if columns_shape is None else features(*columns_shape, dtype=dtype)
    if offset is None:
        size, others = rows_shape[0], columns_shape[0]
    else:
        size, others = (columns_shape or rows_shape)[0], None
    sets, mask, views = [], None, 1 if offset is None else 2
    if with_mask:
        mask = torch.rand(size, others or size) * (torch.rand(size, others or size) < 0.5)
    else:
        sets = attributes(size, others)
    return LossInputs(anchors, keys, sets, mask, views, offset)


def inputs(layout, dtype=torch.float64, with_mask=False):
    """Return anchors, keys, relations and anchor_offset of the operators."""
    loss_inputs = inputs_of(layout, dtype, with_mask)
    return loss_inputs.anchors, loss_inputs.keys, encoded_relations(loss_inputs), loss_inputs.anchor_offset


def forward_arguments(layout, variant, dtype=torch.float64, with_mask=False):
    """Return the arguments of the forward but for keep, which are the last ones of the backward."""
    anchors, keys, relations, offset = inputs(layout, dtype, with_mask)
    temperature = torch.tensor(0.2, dtype=torch.float64)
    return [anchors, keys, temperature, *relations, offset, *variant, LAYOUTS[layout][3], "none", False]


def test_label_ranks_are_intervals():
    """Known values are ranked by size; a missing one is alone in its interval; views have their sample's."""
    labels = torch.tensor([7.0, math.nan, 5.0, 7.5], dtype=torch.float64)
    ((rank, first, last),) = OPERATORS.label_intervals([labels], [0.5], 1)
    assert rank.tolist() == [1, 3, 0, 2]
    assert first.tolist() == [1, 3, 0, 1]
    assert last.tolist() == [2, 3, 0, 2]
    for views in (2, 3):
        several = OPERATORS.label_intervals([labels, torch.tensor([3, -1, 3, 0])], [0.5, 0.0], views)
        once = OPERATORS.label_intervals([labels, torch.tensor([3, -1, 3, 0])], [0.5, 0.0], 1)
        assert torch.equal(several, once.repeat_interleave(views, -1))


@pytest.mark.parametrize("views", [1, 3])
def test_opcheck_label_ranks(views):
    opcheck(OPERATORS.label_intervals.default, ([torch.arange(9), torch.rand(9).double()], [0.0, 0.5], views))


@pytest.mark.parametrize(
    ("layout", "variant", "dtype", "with_mask"),
    [
        *((layout, VARIANTS[0], torch.float64, False) for layout in LAYOUTS),
        *((layout, VARIANTS[3], torch.float64, True) for layout in LAYOUTS),
        *(("symmetric", variant, torch.float64, False) for variant in VARIANTS[1:]),
        ("self", VARIANTS[4], torch.float32, True),
        ("slice", VARIANTS[4], torch.bfloat16, False),
    ],
)
def test_opcheck_contrastive(layout, variant, dtype, with_mask):
    arguments = forward_arguments(layout, variant, dtype, with_mask)
    for keep in (False, True):
        opcheck(OPERATORS.contrastive_fwd.default, (*arguments, keep))
    wanted = [x.clone().requires_grad_() if x is not None else None for x in arguments[:3]]
    opcheck(OPERATORS.contrastive_fwd.default, (*wanted, *arguments[3:], True))
    losses, *saved = OPERATORS.contrastive_fwd(*arguments, True)
    opcheck(OPERATORS.contrastive_bwd.default, (torch.rand_like(losses), *saved, True, True, *arguments))


@pytest.mark.parametrize("layout", ["self", "cross"])
@pytest.mark.parametrize("need", [(True, False), (False, True), (False, False)])
def test_opcheck_of_some_gradients(need, layout):
    arguments = forward_arguments(layout, VARIANTS[0])
    losses, *saved = OPERATORS.contrastive_fwd(*arguments, True)
    opcheck(OPERATORS.contrastive_bwd.default, (torch.rand_like(losses), *saved, *need, *arguments))


@pytest.mark.parametrize("layout", ["self", "cross"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_opcheck_pair_margin(dtype, layout):
    anchors, keys, (intervals, data, words, _, weights), offset = inputs(layout, dtype)
    arguments = (anchors, keys, intervals, data, words, weights, offset, 1.3, False)
    opcheck(OPERATORS.pair_margin_fwd.default, arguments)
    wanted = [x.clone().requires_grad_() if x is not None else None for x in arguments[:2]]
    opcheck(OPERATORS.pair_margin_fwd.default, (*wanted, *arguments[2:]))
    losses, _ = OPERATORS.pair_margin_fwd(*arguments)
    for need in ((True, True), (True, False), (False, True)):
        opcheck(OPERATORS.pair_margin_bwd.default, (torch.rand_like(losses), *need, *arguments))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("with_mask", [False, True])
def test_totals_are_those_of_the_reference(with_mask, layout):
    loss_inputs = inputs_of(layout, with_mask=with_mask)
    symmetric = LAYOUTS[layout][3]
    expected = reference.count_positives(dense_relations(loss_inputs), loss_inputs.anchor_offset, symmetric)
    tau, relations = torch.tensor(0.2), encoded_relations(loss_inputs)
    for variant in VARIANTS:
        _, _, positive_counts, _ = OPERATORS.contrastive_fwd(
            *(loss_inputs.anchors, loss_inputs.keys, tau, *relations, loss_inputs.anchor_offset, *variant),
            *(symmetric, "none", False, False),
        )
        torch.testing.assert_close(positive_counts, expected, rtol=1e-12, atol=0)
    if not with_mask:
        intervals, data, words, _, weights = relations
        _, positive_counts = OPERATORS.pair_margin_fwd(
            *(
                loss_inputs.anchors,
                loss_inputs.keys,
                intervals,
                data,
                words,
                weights,
                loss_inputs.anchor_offset,
                1.3,
                False,
            )
        )
        torch.testing.assert_close(positive_counts, expected[:, : loss_inputs.anchor_count], rtol=1e-12, atol=0)


def test_leading_dimensions_are_rows():
    """[B, V, D] is what [B V, D] is; gradients have the shape of the features."""
    arguments = forward_arguments("slice", VARIANTS[0])
    losses, *saved = OPERATORS.contrastive_fwd(*arguments, True)
    gradients = OPERATORS.contrastive_bwd(losses, *saved, True, True, *arguments)
    assert [gradient.shape for gradient in gradients] == [arguments[0].shape, arguments[1].shape]
    flat = [arguments[0].flatten(0, -2), arguments[1].flatten(0, -2), *arguments[2:]]
    assert torch.equal(OPERATORS.contrastive_fwd(*flat, True)[0], losses)
    for gradient, other in zip(gradients, OPERATORS.contrastive_bwd(losses, *saved, True, True, *flat), strict=True):
        assert torch.equal(gradient.flatten(0, -2), other)


@pytest.mark.parametrize("loss", ["contrastive", "pair_margin"])
def test_gradients_that_are_not_needed_are_empty(loss):
    arguments = forward_arguments("cross", VARIANTS[0])
    if loss == "contrastive":
        losses, *saved = OPERATORS.contrastive_fwd(*arguments, True)
        backward = OPERATORS.contrastive_bwd
    else:
        anchors, keys, _, intervals, data, words, _, weights, offset, *_ = arguments
        arguments = [anchors, keys, intervals, data, words, weights, offset, 1.3, False]
        losses, saved, backward = OPERATORS.pair_margin_fwd(*arguments)[0], [], OPERATORS.pair_margin_bwd
    anchors, keys = backward(losses, *saved, True, True, *arguments)
    only_rows, none = backward(losses, *saved, True, False, *arguments)
    assert none.shape == (0, D)
    assert torch.equal(only_rows, anchors)
    none, only_columns = backward(losses, *saved, False, True, *arguments)
    assert none.shape == (0, D)
    assert torch.equal(only_columns, keys)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_reductions(variant, layout):
    *others, _, allow_tf32 = forward_arguments(layout, variant)

    def run(reduction):
        arguments = [*others, reduction, allow_tf32]
        loss, *saved = OPERATORS.contrastive_fwd(*arguments, True)
        return loss, lambda grad: OPERATORS.contrastive_bwd(grad, *saved, True, True, *arguments)

    losses, of_each = run("none")
    for reduction, share in (("sum", 1.0), ("mean", 1 / len(losses))):
        loss, of_all = run(reduction)
        torch.testing.assert_close(loss, losses.sum() * share)
        upstream = torch.tensor(1.5, dtype=torch.float64)
        for gradient, expected in zip(
            of_all(upstream), of_each(upstream * share * torch.ones_like(losses)), strict=True
        ):
            torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize("layout", [*LAYOUTS, "blocks", "cross_blocks"])
@pytest.mark.parametrize("temperature", [0.2, 0.002])
def test_kept_dot_products_change_no_bit(temperature, layout, variant, dtype, implementation):
    """At temperature 0.002 a pass for the maxima goes before and is the one that keeps them."""
    if "blocks" in layout:  # several, the last ones not full
        anchors = normalize(torch.randn(250, D), dim=1).to(dtype)
        keys = None if layout == "blocks" else anchors.flip(0)[:130].contiguous()
        sets = [Attribute(torch.randint(0, 9, (250,)), Equal(), keys=torch.arange(130) if "cross" in layout else None)]
        offset = None if "cross" in layout else 0
        relations = encoded_relations(LossInputs(anchors, keys, sets, None, 1, offset))
        arguments = [anchors, keys, None, *relations, offset, *variant, "cross" in layout, "none", False]
    else:
        arguments = forward_arguments(layout, variant, dtype)
    arguments[2] = torch.tensor(temperature, dtype=torch.float64)
    losses, *saved, saved_logits = OPERATORS.contrastive_fwd(*arguments, True)
    again, *_, none = OPERATORS.contrastive_fwd(*arguments, False)
    assert torch.equal(again, losses)
    assert none.shape[0] == 0
    assert saved_logits.isfinite().all()
    kept, some, computed = (
        OPERATORS.contrastive_bwd(torch.ones_like(losses), *saved, some, True, True, *arguments)
        for some in (saved_logits, saved_logits[:2], none)
    )
    for gradient, other, third in zip(kept, some, computed, strict=True):
        assert torch.equal(gradient, third)
        assert torch.equal(other, third)


def test_what_is_kept_is_bounded():
    arguments = forward_arguments("self", VARIANTS[0])
    n = 6000
    arguments[0] = torch.randn(n, 1)
    arguments[3:8] = OPERATORS.label_intervals([torch.arange(n)], [0.0], 1), None, [0], None, [1.0]
    saved_logits = OPERATORS.contrastive_fwd(*arguments, True)[-1]
    assert 29e6 < saved_logits.nbytes <= 30e6
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert OPERATORS.contrastive_fwd(*arguments, True)[-1].shape == saved_logits.shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize("temperature", [0.2, 0.005])
def test_gradcheck_contrastive(temperature, variant, layout):
    """At temperature 0.005 the exponents leave the range of the constant shift."""
    anchors, keys, relations, offset = inputs(layout)
    tensors = [tensor.requires_grad_() for tensor in (anchors, keys) if tensor is not None]
    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)

    def losses(tau, anchors, keys=None):
        settings = (offset, *variant, LAYOUTS[layout][3], "none", False, True)
        return OPERATORS.contrastive_fwd(anchors, keys, tau, *relations, *settings)[0]

    assert torch.autograd.gradcheck(losses, (tau, *tensors), eps=1e-7, atol=2e-4, fast_mode=True)


@pytest.mark.parametrize("layout", ["self", "cross"])
def test_gradcheck_pair_margin(layout):
    anchors, keys, (intervals, data, words, _, weights), offset = inputs(layout)
    tensors = [tensor.requires_grad_() for tensor in (anchors, keys) if tensor is not None]

    def losses(anchors, keys=None):
        return OPERATORS.pair_margin_fwd(anchors, keys, intervals, data, words, weights, offset, 1.3, False)[0]

    assert torch.autograd.gradcheck(losses, tensors, eps=1e-7, atol=1e-5)


# ---- what the operators refuse: called past the Python checks they must not read out of bounds ---------------------

FORWARD = [
    *("anchors", "keys", "temperature", "intervals", "relation_data", "words", "mask", "weights"),
    *("anchor_offset", "positives", "denominator", "symmetric", "reduction", "allow_tf32"),
]
MARGIN = ["anchors", "keys", "intervals", "relation_data", "words", "weights", "anchor_offset", "margin", "allow_tf32"]


def changed(names, arguments, change):
    """Return the arguments with those that `change` names replaced: by a value, or by what a function makes of it."""
    named = dict(zip(names, arguments, strict=True))
    for name, value in change.items():
        named[name] = value(named[name]) if callable(value) else value
    return [named[name] for name in names]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": lambda x: x.flatten()}, "anchors must be [.., D] and not empty"),
        ({"anchors": lambda x: x[:0]}, "anchors must be [.., D] and not empty"),
        ({"anchors": lambda x: x[:8]}, "intervals must be [K, 3, 13] int32"),
        ({"keys": lambda y: y[:, :4]}, "keys must be [.., 5] and not empty"),
        ({"keys": lambda y: y[:0]}, "keys must be [.., 5] and not empty"),
        ({"keys": lambda y: y.float()}, "keys must have the dtype of anchors"),
        ({"anchors": lambda x: x.half(), "keys": lambda y: y.half()}, "features must be float32, float64 or bfloat16"),
        ({"anchors": lambda x: x.long(), "keys": lambda y: y.long()}, "features must be float32, float64 or bfloat16"),
        ({"anchor_offset": 0}, "anchor_offset must be in 0 .. M - N = -4, got 0"),
        ({"anchor_offset": -1}, "anchor_offset must be in 0 .. M - N = -4, got -1"),
        ({"keys": None, "anchor_offset": 1}, "anchor_offset needs keys"),
        ({"temperature": lambda t: t.expand(2)}, "temperature must be one number"),
        ({"temperature": lambda t: -t}, "temperature must be positive and finite, got -0.2"),
        ({"temperature": lambda t: t * math.nan}, "temperature must be positive and finite, got nan"),
        ({"intervals": lambda r: r.long()}, "intervals must be [K, 3, 14] int32"),
        ({"intervals": lambda r: r[:, :2]}, "intervals must be [K, 3, 14] int32"),
        ({"intervals": lambda r: r[:3]}, "words must be one per attribute"),
        ({"words": lambda w: w[:3]}, "words must be one per attribute"),
        ({"words": [0, 0, -2, 2]}, "words must be at least -1, got -2"),
        ({"words": [0, 0, -1, 3]}, "relation_data must be [4, 2, 14] int32"),
        ({"relation_data": None}, "relation_data must be [3, 2, 14] int32"),
        ({"relation_data": lambda d: d[:2]}, "relation_data must be [3, 2, 14] int32"),
        ({"relation_data": lambda d: d[:, :1]}, "relation_data must be [3, 2, 14] int32"),
        ({"relation_data": lambda d: d[..., :13]}, "relation_data must be [3, 2, 14] int32"),
        ({"relation_data": lambda d: d.long()}, "relation_data must be [3, 2, 14] int32"),
        ({"weights": [1.0]}, "weights must be one per attribute"),
        ({"positives": "between"}, "positives must be 'out' or 'in', got between"),
        ({"denominator": "none"}, "denominator must be 'all', 'negatives' or 'sincere', got none"),
        ({"positives": "in", "denominator": "sincere"}, "'sincere' has its positives outside the log"),
        ({"reduction": "median"}, "reduction must be 'none', 'mean' or 'sum', got median"),
    ],
)
def test_contrastive_refuses(change, message):
    with pytest.raises(RuntimeError, match=re.escape(message)):
        OPERATORS.contrastive_fwd(*changed(FORWARD, forward_arguments("cross", VARIANTS[0]), change), True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": lambda m: m[:4]}, "mask must be [B, B']"),
        ({"mask": lambda m: m[:, :4]}, "mask must be [B, B']"),
        ({"mask": lambda m: m[:, :0]}, "mask must be [B, B']"),
        ({"mask": lambda m: m[0]}, "mask must be [B, B']"),
        ({"mask": lambda m: m.float()}, "mask must be in the dtype of the computation"),
        ({"mask": None}, "at least one attribute or a mask is needed"),
    ],
)
def test_contrastive_refuses_a_mask(change, message):
    with pytest.raises(RuntimeError, match=re.escape(message)):
        OPERATORS.contrastive_fwd(
            *changed(FORWARD, forward_arguments("cross", VARIANTS[0], with_mask=True), change), True
        )


def test_contrastive_refuses_symmetric_without_columns():
    arguments = forward_arguments("self", VARIANTS[0])
    with pytest.raises(RuntimeError, match="symmetric needs keys"):
        OPERATORS.contrastive_fwd(*arguments[:-3], True, "none", False, True)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("grad_loss", lambda g: g[:-1], "grad_loss must have 9 elements in the dtype of the loss"),
        ("grad_loss", lambda g: g.float(), "grad_loss must have 9 elements in the dtype of the loss"),
        ("saved_lse", lambda s: s[:, 1:], "saved_lse must be that of the forward"),
        ("saved_lse", lambda s: s.float(), "saved_lse must be that of the forward"),
        ("saved_lse", lambda s: s[0], "saved_lse must be that of the forward"),
        ("saved_lse", lambda s: s[:-1], "saved_lse must be that of the forward"),
        ("positive_counts", lambda t: t[:, 1:], "positive_counts must be [4, 9] float64"),
        ("positive_counts", lambda t: t[:-1], "positive_counts must be [4, 9] float64"),
        ("positive_counts", lambda t: t.float(), "positive_counts must be [4, 9] float64"),
        ("saved_logits", lambda d: d[:, 1:], "saved_logits must be those of the forward"),
        ("saved_logits", lambda d: d[0], "saved_logits must be those of the forward"),
        ("saved_logits", lambda d: d.float(), "saved_logits must be those of the forward"),
    ],
)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_contrastive_backward_refuses(variant, name, change, message):
    arguments = forward_arguments("cross", variant)
    names = ["grad_loss", "saved_lse", "positive_counts", "saved_logits"]
    saved = changed(names, OPERATORS.contrastive_fwd(*arguments, True), {name: change})
    with pytest.raises(RuntimeError, match=re.escape(message)):
        OPERATORS.contrastive_bwd(*saved, True, True, *arguments)


def test_pair_margin_refuses():
    anchors, keys, (intervals, data, words, _, weights), offset = inputs("cross")
    arguments = (anchors, keys, intervals, data, words, weights, offset, 1.0, False)
    for change, message in [
        ({"anchors": anchors[:8]}, "intervals must be [K, 3, 13] int32"),
        ({"keys": keys[:, 1:]}, "keys must be [.., 5] and not empty"),
        ({"weights": [1.0]}, "weights must be one per attribute"),
        ({"anchors": anchors.half(), "keys": keys.half()}, "features must be float32, float64 or bfloat16"),
    ]:
        with pytest.raises(RuntimeError, match=re.escape(message)):
            OPERATORS.pair_margin_fwd(*changed(MARGIN, arguments, change))
    losses, _ = OPERATORS.pair_margin_fwd(*arguments)
    for grad in (losses[1:], losses.float()):
        with pytest.raises(RuntimeError, match=re.escape("grad_losses must be [9] in the dtype of the losses")):
            OPERATORS.pair_margin_bwd(grad, True, True, *arguments)


def to_meta(argument):
    return [to_meta(each) for each in argument] if isinstance(argument, list) else argument.to("meta")


def on_the_cpu(operator, *arguments):
    """Call the kernel for CPU tensors, although others are among the arguments."""
    return operator.default._op_dk(torch._C.DispatchKey.CPU, *arguments)


@pytest.mark.parametrize("name", ["keys", "temperature", "intervals", "relation_data"])
@pytest.mark.usefixtures("implementation")
def test_forward_refuses_a_tensor_on_another_device(name):
    arguments = changed(FORWARD, forward_arguments("cross", VARIANTS[0]), {name: to_meta})
    with pytest.raises(RuntimeError, match=f"{name} must be on the device of anchors"):
        on_the_cpu(ops.operators.contrastive_fwd, *arguments, True)


@pytest.mark.usefixtures("implementation")
def test_operators_refuse_a_tensor_on_another_device():
    operators = ops.operators
    arguments = changed(FORWARD, forward_arguments("cross", VARIANTS[0], with_mask=True), {"mask": to_meta})
    with pytest.raises(RuntimeError, match="mask must be on the device of anchors"):
        on_the_cpu(operators.contrastive_fwd, *arguments, True)

    arguments = forward_arguments("cross", VARIANTS[0])
    names = ["grad_loss", "saved_lse", "positive_counts", "saved_logits"]
    for name in names[:3]:
        saved = changed(names, operators.contrastive_fwd(*arguments, True), {name: to_meta})
        with pytest.raises(RuntimeError, match=f"{name} must be on the device of anchors"):
            on_the_cpu(operators.contrastive_bwd, *saved, True, True, *arguments)

    anchors, keys, (intervals, data, words, _, weights), offset = inputs("cross")
    arguments = (anchors, keys, intervals, data, words, weights, offset, 1.0, False)
    losses, _ = operators.pair_margin_fwd(*arguments)
    with pytest.raises(RuntimeError, match="grad_losses must be on the device of anchors"):
        on_the_cpu(operators.pair_margin_bwd, to_meta(losses), True, True, *arguments)

    labels = [torch.arange(3), torch.arange(3).to("meta")]
    with pytest.raises(RuntimeError, match="labels must be on the device of the first attribute"):
        on_the_cpu(operators.label_intervals, labels, [0.0, 0.0], 1)


@pytest.mark.parametrize(
    ("labels", "tolerances", "views", "message"),
    [
        ([torch.arange(3)], [], 1, "tolerances must have one value per attribute, got 0 for 1"),
        ([torch.arange(3), torch.arange(4)], [0.0, 0.0], 1, "labels must each be [3]"),
        ([torch.zeros(3, 1)], [0.0], 1, "labels must each be [3]"),
        ([torch.zeros(3, dtype=torch.int32)], [0.0], 1, "labels must be int64 or float64"),
        ([torch.zeros(3)], [0.0], 1, "labels must be int64 or float64"),
        ([torch.arange(3)], [0.5], 1, "integer labels are compared for equality, got tolerance 0.5"),
        ([torch.arange(3)], [0.0], 0, "views must be positive, got 0"),
    ],
)
def test_label_ranks_refuses(labels, tolerances, views, message):
    with pytest.raises(RuntimeError, match=re.escape(message)):
        OPERATORS.label_intervals(labels, tolerances, views)


@pytest.mark.parametrize("intervals", [[-1, -1, 0], [0, 1, 0], [5, 0, 3]])
def test_ranks_that_label_ranks_does_not_make_are_refused(intervals):
    """They would be read as places in memory."""
    anchors = features(4)
    bad = torch.tensor(intervals, dtype=torch.int32)[None, :, None].expand(1, 3, 4)
    with pytest.raises(RuntimeError, match="intervals must be those of label_intervals"):
        OPERATORS.pair_margin_fwd(anchors, None, bad, None, [0], [1.0], None, 1.0, False)


def test_nothing_that_relates_pairs_is_refused():
    intervals = torch.empty(0, 3, 4, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="at least one attribute or a mask is needed"):
        OPERATORS.pair_margin_fwd(features(4), None, intervals, None, [], [], None, 1.0, False)

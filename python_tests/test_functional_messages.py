"""Every public argument of the three functions: what is wrong is named, with what was expected and what came."""

import inspect
import math
import re

import pytest
import torch

from mmcuda.functional import cross_contrast_loss, pair_margin_loss, supcon_loss
from mmcuda.relations import Attribute, Equal, Overlap

META = "meta"
X = torch.ones(4, 8)
LABELS = Attribute(torch.zeros(4), Equal())
CROSSED = Attribute(torch.zeros(4), Equal(), keys=torch.zeros(6))
FUNCTIONS = {
    supcon_loss: {"features": torch.ones(4, 2, 8), "attributes": [], "impl": "reference"},
    cross_contrast_loss: {"anchors": X, "keys": torch.ones(6, 8), "attributes": [CROSSED], "impl": "reference"},
    pair_margin_loss: {"anchors": X, "keys": None, "attributes": [LABELS], "impl": "reference"},
}
BIG = {
    "keys": torch.ones(12, 8),
    "attributes": [],
    "views": 2,
    "anchor_offset": 4,
}  # among 6 samples of 2 views


def of_features(name, shape, wrong_shape, empty):
    good = X if name != "features" else FUNCTIONS[supcon_loss]["features"]
    many = f"{name} must be {shape} with at least one element, got shape"
    return [
        (TypeError, {name: good.tolist()}, f"{name} must be a tensor, got list"),
        (TypeError, {name: good.to_sparse()}, f"{name} must be a dense tensor, got layout torch.sparse_coo"),
        (ValueError, {name: good.long()}, f"{name} must be float16, bfloat16, float32 or float64, got torch.int64"),
        (ValueError, {name: wrong_shape}, f"{many} {list(wrong_shape.shape)}"),
        (ValueError, {name: empty}, f"{many} {list(empty.shape)}"),
    ]


def of_keys():
    return [
        *of_features("keys", "[M, D]", X[0], X[:0]),
        (ValueError, {"keys": X[:, :5]}, "keys must be [M, D] with D = 8 as in anchors, got [4, 5]"),
        (ValueError, {"keys": X.double()}, "keys must have the dtype of anchors, torch.float32, got torch.float64"),
        (ValueError, {"keys": X.to(META)}, "keys must be on the device of anchors, cpu, got meta"),
    ]


def of_mask(shape, sizes, owner, **others):
    ones = torch.ones(sizes)
    wanted = f"mask must be real and {shape} = {list(sizes)}, got"
    return [
        (error, {"attributes": [], **others, **arguments}, message)
        for error, arguments, message in [
            (TypeError, {"mask": ones.tolist()}, "mask must be a tensor, got list"),
            (ValueError, {"mask": ones[:, :3]}, f"{wanted} torch.float32 [{sizes[0]}, 3]"),
            (ValueError, {"mask": ones.cfloat()}, f"{wanted} torch.complex64 {list(sizes)}"),
            (ValueError, {"mask": ones.clone().requires_grad_()}, "mask must not require a gradient"),
            (ValueError, {"mask": ones.to(META)}, f"mask must be on the device of {owner}, cpu, got meta"),
            (ValueError, {"mask": ones * math.nan}, "mask must be finite and not negative"),
            (ValueError, {"mask": ones * math.inf}, "mask must be finite and not negative"),
            (ValueError, {"mask": -ones}, "mask must be finite and not negative"),
            (
                ValueError,
                {"mask": 2 * ones, "denominator": "negatives"},
                "mask must be at most 1 for denominator='negatives', got 2.0",
            ),
        ]
    ]


def of_temperature(owner):
    wanted = "temperature must be a number or a floating tensor [], got"
    return [
        (TypeError, {"temperature": "1"}, "temperature must be a number, got str"),
        (ValueError, {"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        (ValueError, {"temperature": math.nan}, "temperature must be positive and finite, got nan"),
        (ValueError, {"temperature": math.inf}, "temperature must be positive and finite, got inf"),
        (ValueError, {"temperature": torch.ones(1)}, f"{wanted} torch.float32 [1]"),
        (ValueError, {"temperature": torch.tensor(1)}, f"{wanted} torch.int64 []"),
        (ValueError, {"temperature": torch.tensor(-1.0)}, "temperature must be positive and finite, got -1.0"),
        (
            ValueError,
            {"temperature": torch.tensor(1.0, device=META)},
            f"temperature must be on the device of {owner}, cpu, got meta",
        ),
    ]


def of_variant():
    return [
        (ValueError, {"positives": "inside"}, "positives must be 'out' or 'in', got 'inside'"),
        (
            ValueError,
            {"denominator": "others"},
            "denominator must be 'all', 'negatives' or 'sincere', got 'others'",
        ),
        (
            ValueError,
            {"positives": "in", "denominator": "sincere"},
            "denominator must be 'all' or 'negatives' for positives='in', got 'sincere'",
        ),
    ]


def of_anchor_weights(shape, size, owner, **others):
    ones = torch.ones(size)
    wanted = f"anchor_weights must be real and {shape} = [{size}], got"
    return [
        (error, {**others, "anchor_weights": weights}, message)
        for error, weights, message in [
            (TypeError, [1.0], "anchor_weights must be a tensor, got list"),
            (ValueError, ones[:3], f"{wanted} torch.float32 [3]"),
            (ValueError, ones[:, None], f"{wanted} torch.float32 [{size}, 1]"),
            (ValueError, ones.cfloat(), f"{wanted} torch.complex64 [{size}]"),
            (ValueError, ones.to(META), f"anchor_weights must be on the device of {owner}, cpu, got meta"),
            (ValueError, -ones, "anchor_weights must be finite and not negative"),
            (ValueError, ones * math.nan, "anchor_weights must be finite and not negative"),
        ]
    ]


def of_execution():
    return [
        (
            ValueError,
            {"reduction": "max"},
            "reduction must be 'none', 'mean', 'has_positives' or 'sum', got 'max'",
        ),
        (ValueError, {"impl": "fast"}, "impl must be 'auto', 'fused' or 'reference', got 'fast'"),
    ]


def of_attributes(owner, counted, size, **others):
    def sets(**arguments):
        return [Attribute(**({"values": torch.zeros(size), "relation": Equal()} | arguments))]

    return [
        (error, {**others, "attributes": attributes}, message)
        for error, attributes, message in [
            (TypeError, LABELS, "attributes must be a list of Attribute, got Attribute"),
            (TypeError, torch.zeros(4), "attributes must be a list of Attribute, got Tensor"),
            (TypeError, [torch.zeros(4)], "attributes[0] must be an Attribute, got Tensor"),
            (ValueError, sets(values=torch.zeros(3)), f"labels must have one value per {counted} = {size}, got 3"),
            (
                ValueError,
                sets(values=torch.zeros(3, 2), relation=Overlap(), name="findings"),
                f"findings must have one value per {counted} = {size}, got 3",
            ),
            (
                ValueError,
                sets(values=torch.zeros(size, device=META)),
                f"labels must be on the device of {owner}, cpu, got meta",
            ),
            (
                ValueError,
                sets(keys=torch.zeros(5)),
                "keys of labels must be None where anchors and keys are the same samples",
            ),
        ]
    ]


def of_crossed_attributes():
    short = Attribute(torch.zeros(4), Equal(), keys=torch.zeros(4))
    return [
        *of_attributes("anchors", "anchor, N", 4)[:-1],
        (
            ValueError,
            {"attributes": [LABELS]},
            "keys of labels must be given: the keys are other samples than the anchors",
        ),
        (
            ValueError,
            {"attributes": [CROSSED, short]},
            "keys of labels must have one value per key, M = 6, got 4",
        ),
    ]


MESSAGES = {
    supcon_loss: [
        *of_features("features", "[B, V, D] or [N, D]", X[0], torch.ones(4, 0, 8)),
        *of_attributes("features", "sample, B", 4),
        *of_mask("[B, B]", (4, 4), "features"),
        (ValueError, {"attributes": [LABELS], "mask": torch.ones(4, 4)}, "labels and mask cannot be given together"),
        *of_temperature("features"),
        (ValueError, {"contrast_mode": "some"}, "contrast_mode must be 'all' or 'one', got 'some'"),
        (TypeError, {"base_temperature": "1"}, "base_temperature must be a number, got str"),
        (ValueError, {"base_temperature": 0}, "base_temperature must be positive and finite, got 0"),
        *of_variant(),
        *of_anchor_weights("[B]", 4, "features"),
        *of_execution(),
    ],
    cross_contrast_loss: [
        *of_features("anchors", "[N, D]", torch.ones(4, 2, 8), X[:0]),
        *of_keys(),
        *of_crossed_attributes(),
        *of_attributes("anchors", "sample, M / views", 6, **{k: v for k, v in BIG.items() if k != "attributes"}),
        (
            ValueError,
            {"attributes": []},
            "attributes or mask must be given unless N = M: got N = 4 anchors and M = 6 keys",
        ),
        *of_mask("[N, M]", (4, 6), "anchors"),
        *of_mask("[M / views, M / views]", (6, 6), "anchors", **BIG),
        (ValueError, {"mask": torch.ones(4, 6)}, "labels and mask cannot be given together: give one of them"),
        *of_temperature("anchors"),
        *of_variant(),
        (TypeError, {"anchor_offset": 0.0}, "anchor_offset must be an integer, got float"),
        (ValueError, {"anchor_offset": -1}, "anchor_offset must be at least 0, got -1"),
        (
            ValueError,
            {"anchor_offset": 3},
            "anchor_offset must be at most M - N = 2, so that the anchors are keys, got 3",
        ),
        (ValueError, BIG | {"anchor_offset": 3}, "views must divide anchor_offset = 3, got 2"),
        (ValueError, BIG | {"anchors": X[:3]}, "views must divide N = 3, got 2"),
        (ValueError, BIG | {"keys": torch.ones(11, 8)}, "views must divide M = 11, got 2"),
        (TypeError, {"views": 2.0}, "views must be an integer, got float"),
        (ValueError, {"views": 0}, "views must be at least 1, got 0"),
        (ValueError, {"views": 2}, "views must be 1 without anchor_offset, got 2"),
        (TypeError, {"symmetric": 1}, "symmetric must be True or False, got 1"),
        *of_anchor_weights("[N]", 4, "anchors"),
        *of_anchor_weights("[N + M]", 10, "anchors", symmetric=True),
        *of_execution(),
    ],
    pair_margin_loss: [
        *of_features("anchors", "[N, D]", torch.ones(4, 2, 8), X[:, :0]),
        *of_keys(),
        *of_attributes("anchors", "anchor, N", 4),
        *[(e, {"keys": torch.ones(6, 8)} | a, m) for e, a, m in of_crossed_attributes()],
        (ValueError, {"attributes": []}, "attributes must hold at least one Attribute, got none"),
        (TypeError, {"margin": torch.ones(())}, "margin must be a number, got Tensor"),
        (ValueError, {"margin": -1.0}, "margin must be not negative and finite, got -1.0"),
        (ValueError, {"margin": math.inf}, "margin must be not negative and finite, got inf"),
        *of_execution(),
    ],
}
CASES = [
    pytest.param(function, *case, id=f"{function.__name__}-{case[2]}")
    for function, cases in MESSAGES.items()
    for case in cases
]


@pytest.mark.parametrize(("function", "error", "arguments", "message"), CASES)
def test_a_wrong_argument_is_named(function, error, arguments, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        function(**(FUNCTIONS[function] | arguments))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_argument_has_a_message(function):
    function(**FUNCTIONS[function])  # what the cases start from is right
    wrong = {message.split(" ")[0].split("[")[0] for _, _, message in MESSAGES[function]}
    assert set(inspect.signature(function).parameters) <= wrong


def test_fused_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr("mmcuda._native.extension.native", object())  # as if it was built
    x, labels = torch.ones(2, 4, device=META), torch.zeros(2, device=META)
    for loss in (
        lambda: supcon_loss(x[:, None], impl="fused"),
        lambda: cross_contrast_loss(x, x, impl="fused"),
        lambda: pair_margin_loss(x, None, [Attribute(labels, Equal())], impl="fused"),
    ):
        with pytest.raises(RuntimeError, match="impl='fused' is not possible: no fused kernels for meta tensors"):
            loss()


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vmap])
def test_fused_is_refused_in_a_transform(monkeypatch, transform):
    monkeypatch.setattr("mmcuda._native.extension.why_not_fused", lambda device_type: None)
    features = torch.ones(3, 2, 2, 4) if transform is torch.func.vmap else torch.ones(2, 2, 4)
    message = re.escape("torch.func transforms are not supported by the kernels, use impl='reference'")
    with pytest.raises(RuntimeError, match=message):
        transform(lambda z: supcon_loss(z, impl="fused"))(features)
    transform(lambda z: supcon_loss(z, impl="auto"))(features)  # by the reference

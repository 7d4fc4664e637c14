"""Attributes: which pairs each relation makes positives, missing values, messages."""

import math
import re

import pytest
import torch

from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Within

NAN = math.nan


def assert_relation(labels, expected):
    torch.testing.assert_close(labels.dense().double(), torch.tensor(expected, dtype=torch.float64))


def test_equal():
    assert_relation(Attribute(torch.tensor([3, 3, 4]), Equal()), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert_relation(Attribute(torch.tensor([0.5, -1.0, -1.0]), Equal()), [[1, 0, 0], [0, 1, 1], [0, 1, 1]])
    assert_relation(Attribute(torch.tensor([True, False]), Equal()), [[1, 0], [0, 1]])


def test_identifiers_of_64_bits_are_told_apart():
    big = 2**62
    assert_relation(Attribute(torch.tensor([big, big + 1, big]), Equal()), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])


def test_within_counts_the_unit():
    """Its end belongs to it; integers are compared as numbers, also those without a sign."""
    expected = [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    for dtype in (torch.int8, torch.int64, torch.uint8, torch.float32):
        assert_relation(Attribute(torch.tensor([20, 40, 41], dtype=dtype), Within(1)), expected)
    assert_relation(Attribute(torch.tensor([255, 1], dtype=torch.uint8), Within(2)), [[1, 0], [0, 1]])


def test_rbf_falls_with_the_difference_and_ends_at_6_sigma():
    values = torch.tensor([0.0, 2.0, 12.0, 12.0001], dtype=torch.float64)
    near, end = math.exp(-0.5), math.exp(-18)
    relation = Attribute(values, Rbf(2.0)).dense()
    torch.testing.assert_close(relation[0], torch.tensor([1, near, end, 0], dtype=torch.float64))
    assert relation[0, 2] > 0
    torch.testing.assert_close(relation, relation.T)


def test_overlap_is_jaccard_over_the_cells_known_in_both():
    values = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [-1, -1, 1, 0], [-1, -1, -1, -1], [0, 0, -1, -1]])
    expected = [
        [1, 1 / 3, 0, 1, 0, 0],
        [1 / 3, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1],  # two healthy samples agree
        [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],  # of a sample of which nothing is known: itself
        [0, 0, 1, 0, 0, 1],
    ]
    assert_relation(Attribute(values, Overlap()), expected)
    assert_relation(Attribute(values.double().masked_fill(values == -1, NAN), Overlap()), expected)
    assert_relation(Attribute(values[:3].bool(), Overlap()), [anchor[:3] for anchor in expected[:3]])


@pytest.mark.parametrize("relation", [Equal(), Within(5.0), Rbf(5.0)])
@pytest.mark.parametrize(
    "values",
    [torch.tensor([-1, 4, -1, 4]), torch.tensor([NAN, 4.0, NAN, 4.0]), torch.tensor([math.inf, 4, -math.inf, 4])],
)
def test_a_missing_value_is_related_to_its_own_sample_only(values, relation):
    assert_relation(Attribute(values, relation), [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1]])
    of_others = Attribute(values, relation, keys=values)  # other samples: no pair is a sample with itself
    assert_relation(of_others, [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]])


def test_columns_are_other_samples():
    labels = Attribute(torch.tensor([1, 2]), Equal(), keys=torch.tensor([2, 1, 1]))
    assert_relation(labels, [[0, 1, 1], [1, 0, 0]])
    known, unknown = torch.tensor([[1, 0]]), torch.tensor([[-1, -1]])
    assert_relation(
        Attribute(torch.cat([known, unknown]), Overlap(), keys=torch.cat([known, unknown])), [[1, 0], [0, 0]]
    )


def test_relations_say_what_they_are():
    assert [str(r) for r in (Equal(), Within(25.0), Rbf(2.5), Overlap())] == [
        "equal",
        "within 25",
        "rbf 2.5",
        "overlap",
    ]


@pytest.mark.parametrize("tolerance", [-1.0, NAN, math.inf])
def test_within_refuses_a_senseless_tolerance(tolerance):
    with pytest.raises(ValueError, match=f"tolerance must be not negative and finite, got {tolerance}"):
        Within(tolerance)


@pytest.mark.parametrize("sigma", [0.0, -1.0, NAN, math.inf])
def test_rbf_refuses_a_senseless_sigma(sigma):
    with pytest.raises(ValueError, match=f"sigma must be positive and finite, got {sigma}"):
        Rbf(sigma)


def test_numbers_must_be_numbers():
    with pytest.raises(TypeError, match="tolerance must be a number, got str"):
        Within("25")
    with pytest.raises(TypeError, match="sigma must be a number, got Tensor"):
        Rbf(torch.ones(()))


LABELS = torch.tensor([0, 1, 1])
CELLS = torch.tensor([[0, 1], [1, 1], [-1, 0]])


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (TypeError, {"values": [0, 1]}, "labels must be a tensor, got list"),
        (TypeError, {"values": CELLS.to_sparse()}, "labels must be a dense tensor, got layout torch.sparse_coo"),
        (ValueError, {"values": CELLS}, "labels must be real and [B], got torch.int64 [3, 2]"),
        (ValueError, {"values": LABELS.cfloat()}, "labels must be real and [B], got torch.complex64 [3]"),
        (
            ValueError,
            {"relation": Overlap()},
            "labels must be real and [B, C], C > 0, for Overlap(), got torch.int64 [3]",
        ),
        (
            ValueError,
            {"values": CELLS[:, :0], "relation": Overlap()},
            "labels must be real and [B, C], C > 0, for Overlap(), got torch.int64 [3, 0]",
        ),
        (
            ValueError,
            {"values": CELLS * 2, "relation": Overlap()},
            "labels must be 0 or 1, or -1 or NaN where it is not known, for Overlap()",
        ),
        (
            ValueError,
            {"values": CELLS, "keys": CELLS + 0.5, "relation": Overlap()},
            "keys of labels must be 0 or 1, or -1 or NaN where it is not known, for Overlap()",
        ),
        (
            TypeError,
            {"relation": "equal"},
            "relation of labels must be Equal(), Within(tolerance), Rbf(sigma) or Overlap(), got 'equal'",
        ),
        (
            TypeError,
            {"relation": Equal},
            "relation of labels must be Equal(), Within(tolerance), Rbf(sigma) or Overlap(), got <class",
        ),
        (TypeError, {"weight": "1"}, "weight of labels must be a number, got str"),
        (ValueError, {"weight": -1.0}, "weight of labels must be not negative and finite, got -1.0"),
        (ValueError, {"weight": NAN, "name": "cst"}, "weight of cst must be not negative and finite, got nan"),
        (TypeError, {"keys": [1]}, "keys of labels must be a tensor, got list"),
        (ValueError, {"keys": CELLS}, "keys of labels must be real and [B], got torch.int64 [3, 2]"),
        (
            ValueError,
            {"keys": LABELS.double()},
            "keys of labels must be floating if and only if the values are, got torch.float64 for torch.int64",
        ),
        (
            ValueError,
            {"values": CELLS, "keys": CELLS[:, :1], "relation": Overlap()},
            "keys of labels must be [B', 2], as many cells as the values have, got [3, 1]",
        ),
        (
            ValueError,
            {"keys": LABELS.to("meta")},
            "keys of labels must be on the device of the values, cpu, got meta",
        ),
    ],
)
def test_a_wrong_argument_is_named(error, arguments, message):
    with pytest.raises(error, match=re.escape(message)):
        Attribute(**({"values": LABELS, "relation": Equal()} | arguments))

"""The rules of clinical columns: as written, as inferred, and what they make of the values."""

import numpy as np
import pandas as pd
import pytest

from mmcuda import Equal, Rbf, Within
from mmcuda.data.clinical import infer_rule, propose_tolerance, read_clinical, read_label
from mmcuda.data.rules import Rule, parse_rules
from mmcuda.data.sheet import Sheet

RNG = np.random.default_rng(0)


def sheet(**columns):
    frame = pd.DataFrame(columns)
    return Sheet("cohort.csv", frame, np.arange(2, len(frame) + 2))


def label(values, rule):
    return read_label(sheet(x=values), "x", rule)[0]


def test_rules_as_written():
    spec = {"a": "equal", "b": {"within": 25, "weight": 2}, "c": {"rbf": 0.5}, "d": {"bins": 8}, "e": "category"}
    assert parse_rules(spec) == {
        "a": Rule("equal"),
        "b": Rule("within", 25, 2),
        "c": Rule("rbf", 0.5),
        "d": Rule("bins", 8),
        "e": Rule("category"),
    }
    assert parse_rules({"a": {"weight": 3}}) == {"a": Rule("equal", weight=3)}
    assert parse_rules(("a", "b")) == parse_rules(["a", "b"]) == {"a": None, "b": None}
    assert parse_rules("a") == {"a": None}
    assert parse_rules("auto") is None
    assert parse_rules(None) == {}


@pytest.mark.parametrize(
    ("values", "rule", "reason"),
    [
        (["mild", "severe", "mild", "none", "none", ""], Rule("equal"), "3 categories"),
        (["3a", "3b", "3b", "2", "3a", "2"], Rule("equal"), "3 categories"),
        ([0, 1, 2, 1, 0, None], Rule("equal"), "3 grades from 0 to 2"),
        ([1.5, 2.5, 1.5, 2.5], Rule("within", 0.1), "continuous, 2 different values from 1.5 to 2.5"),
        (range(27, 101), Rule("within", 5), "continuous, 74 different values from 27 to 100"),
        ([7, 7, 7, None], None, "it has the same value everywhere"),
        (["", "", ""], None, "it is empty"),
        ([f"scan {row}" for row in range(25)], None, "25 of 25 cells differ, so hardly two images share a value"),
        (
            ["2021-03-04", "2022-01-01"] * 3,
            None,
            'it holds dates such as "2021-03-04"; give an age or a number of days',
        ),
        (
            ["04/03/2021", "01/01/2022"] * 3,
            None,
            'it holds dates such as "04/03/2021"; give an age or a number of days',
        ),
    ],
)
def test_the_kind_is_inferred(values, rule, reason):
    found = infer_rule(sheet(x=list(values)), "x")
    assert found.rule == rule
    assert found.reason.startswith(reason)


@pytest.mark.parametrize("cells", [["2,5", "2,7", "2,5"], ["20/40", "20/20", "20/20"], ["1", "2", "300 um", "5"]])
def test_what_was_meant_as_numbers_is_not_taken_as_categories(cells):
    _, problems, _ = read_clinical(sheet(x=cells), ("x",), set())
    assert problems
    assert {problem.severity for problem in problems} == {"error"}


def test_auto_takes_what_can_be_a_label_and_says_why_not():
    table = sheet(
        patient=["a", "b"] * 6, stage=[0, 1, 2] * 4, site=["x"] * 12, visit=["2021-03-04", "2021-04-04"] * 6, free=None
    )
    labels, problems, notes = read_clinical(table, "auto", {"patient"})
    assert list(labels) == ["stage"]
    assert problems == []
    assert [note.split(":")[0] for note in notes] == ["stage", "site", "visit", "free"]
    assert notes[1] == "site: no clinical label, since it has the same value everywhere"


def test_a_named_column_that_cannot_be_a_label_is_an_error():
    _, problems, _ = read_clinical(sheet(site=["x"] * 4), ("site",), set())
    assert [str(problem) for problem in problems] == [
        "cohort.csv column site: is no clinical label: it has the same value everywhere"
    ]
    labels, problems, _ = read_clinical(sheet(site=["x"] * 4), {"site": "equal"}, set())
    assert problems == []
    assert labels["site"].values.tolist() == [0, 0, 0, 0]
    _, problems, _ = read_clinical(sheet(site=[""] * 4), {"site": "equal"}, set())
    assert [str(problem) for problem in problems] == ["cohort.csv column site: is empty"]


@pytest.mark.parametrize("scale", [1e-3, 1, 37, 1e4])
def test_the_proposed_tolerance_is_round_and_gives_a_fair_number_of_positives(scale):
    values = scale * RNG.normal(300, 100, 2000)
    tolerance = propose_tolerance(values)
    assert f"{tolerance:.1e}"[:3] in ("1.0", "2.0", "2.5", "5.0")
    share = (np.abs(values[:, None] - values) <= tolerance).mean()
    assert 0.08 < share < 0.2


def test_words_become_codes_with_missing_ones_missing():
    found = label(["mild", "", "severe", "NA", "mild"], Rule("equal", weight=2))
    np.testing.assert_array_equal(found.values, [0, np.nan, 1, np.nan, 0])
    assert found.relation == Equal()
    assert found.weight == 2
    assert found.description == "x, 2 categories: mild, severe"


def test_category_compares_cells_as_they_are_written():
    assert label(["1", "1.0", "01", "x"], Rule("category")).values.tolist() == [1, 2, 0, 3]
    assert label(["1", "1.0", "01", "2"], Rule("equal")).values.tolist() == [1, 1, 1, 2]


def test_relations_keep_the_values():
    for rule, relation in ((Rule("within", 2.5), Within(2.5)), (Rule("rbf", 4), Rbf(4)), (Rule("equal"), Equal())):
        found = label([1.5, None, 3], rule)
        np.testing.assert_array_equal(found.values, [1.5, np.nan, 3])
        assert found.relation == relation
        assert found.description == "x, 2 different values from 1.5 to 3"


def test_bins_of_equal_width():
    found = label([0, 1.9, 2, 9.9, 10, None], Rule("bins", 5))
    np.testing.assert_array_equal(found.values, [0, 0, 1, 4, 4, np.nan])
    assert found.relation == Equal()
    assert found.description == "x, 5 different values from 0 to 10, in 5 bins of equal width, cut at 2, 4, 6, 8"
    assert label([3, 3, 3], Rule("bins", 2)).values.std() == 0


def test_bins_of_equal_size():
    values = RNG.gamma(2, 10, 400)
    counts = np.bincount(label(values, Rule("quantiles", 4)).values.astype(int))
    assert counts.tolist() == [100] * 4
    many_zeros = label([0] * 8 + [1, 2], Rule("quantiles", 4))
    assert len(np.unique(many_zeros.values)) == 2

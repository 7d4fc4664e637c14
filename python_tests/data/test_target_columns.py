import numpy as np
import pytest
from tables import config, patients_table, write_table

from mmcuda.data import load_table, read_table
from mmcuda.errors import UserError
from mmcuda.targets import Continuous, Multiclass, Ordinal


def read(tmp_path, targets, **cells):
    """The table with some cells of a column replaced, and its problems."""
    table = patients_table().astype({column: object for column in cells})
    for column, values in cells.items():
        for row, value in values.items():
            table.loc[row, column] = value
    return read_table(config(write_table(tmp_path, table, with_images=False), targets=targets))


def test_every_kind_is_read_as_it_is_named(tmp_path):
    table, problems = read(
        tmp_path,
        (
            "fluid",
            {"cst": "continuous", "stage": "ordinal"},
            {"sex": "multiclass"},
            {"grade": {"ordinal": ["severe", "mild"]}},
        ),
    )
    assert not [problem for problem in problems if problem.severity == "error"]
    written = patients_table()
    assert table.kinds == {
        "cst": Continuous(),
        "stage": Ordinal(("0", "1", "2", "3")),
        "sex": Multiclass(("F", "M")),
        "grade": Ordinal(("severe", "mild")),
    }
    np.testing.assert_array_equal(table.targets["cst"], written["cst"].astype(np.float32))
    np.testing.assert_array_equal(table.targets["stage"], written["stage"])
    np.testing.assert_array_equal(table.targets["sex"], written["sex"] == "M")
    np.testing.assert_array_equal(table.targets["grade"], written["grade"] == "mild")
    np.testing.assert_array_equal(table.targets["fluid"], written["fluid"])


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("cst", "'{cst: continuous}' (or ordinal, multiclass)"),
        ("stage", "'{stage: continuous}' (or ordinal, multiclass)"),
        ("grade", "'{grade: multiclass}'"),
    ],
)
def test_a_column_that_is_not_binary_needs_a_kind(tmp_path, column, said):
    _, problems = read(tmp_path, (column,))
    [error] = [problem for problem in problems if problem.severity == "error"]
    assert error.where == f"cohort.csv column {column}"
    assert error.message.startswith("is not of 0 and 1 but of ")
    assert error.message.endswith(f"; say which kind it is: --data.targets {said}")


@pytest.mark.parametrize(
    ("targets", "column", "cell", "said"),
    [
        ({"cst": "continuous"}, "cst", "thick", '"thick" is not a number'),
        ({"stage": "ordinal"}, "stage", "late", '"late" is not a number'),
        ({"grade": {"ordinal": ["mild", "severe"]}}, "grade", "mid", 'expected mild, severe or empty, got "mid"'),
        ("fluid", "fluid", "maybe", 'expected 0 or 1, true or false, yes or no, or empty, got "maybe"'),
    ],
)
def test_a_bad_cell_is_named_and_has_no_label(tmp_path, targets, column, cell, said):
    table, problems = read(tmp_path, targets, **{column: {7: cell}})
    assert [str(p) for p in problems if p.severity == "error"] == [f"cohort.csv row 9 column {column}: {said}"]
    assert np.isnan(table.targets[column][7])


def test_an_unknown_kind_is_refused(tmp_path):
    path = write_table(tmp_path, with_images=False)
    with pytest.raises(UserError, match="cst must be one of binary, multiclass, ordinal, continuous"):
        load_table(config(path, targets={"cst": "contineous"}))

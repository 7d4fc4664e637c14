"""The user's own table: every file format, every role of a column, every bad input."""

import time

import numpy as np
import pandas as pd
import pytest
from data.tables import config, patients_table, write_images, write_table

from mmcuda import Equal, Within
from mmcuda.data import DataConfig, load_cohort, load_table, read_table, split_table
from mmcuda.errors import UserError


def problems(path, **options):
    """Return all that is wrong with a table, as a user reads it."""
    return [f"{problem.severity} {problem}" for problem in read_table(config(path, **options))[1]]


@pytest.mark.parametrize("name", ["cohort.csv", "cohort.csv.gz", "cohort.tsv", "cohort.xlsx", "cohort.parquet"])
def test_every_file_format_gives_the_same_table(tmp_path, name):
    table = load_table(config(write_table(tmp_path, name=name), clinical="auto", bag="eye", subgroups=("sex",)))
    frame = patients_table()
    assert table.image_names.tolist() == frame["image"].tolist()
    assert table.patients.tolist() == frame["patient"].tolist()
    assert table.row_numbers.tolist() == list(range(2, 26))
    np.testing.assert_array_equal(table.clinical["cst"].values, frame["cst"])
    np.testing.assert_array_equal(table.clinical["grade"].values, frame["grade"] == "severe")
    np.testing.assert_array_equal(table.targets["fluid"], frame["fluid"])
    assert table.subgroups["sex"].tolist() == frame["sex"].tolist()
    assert {name: label.relation for name, label in table.clinical.items()} == {
        **{"bcva": Within(5.0), "cst": Within(20.0), "stage": Equal(), "grade": Equal(), "sex": Equal()},
    }
    assert table.split is None
    assert len(np.unique(table.bags)) == 12


def test_the_pixels_come_with_the_table(tmp_path):
    cohort = load_cohort(config(write_table(tmp_path)))
    assert cohort.images.shape == (24, 1, 16, 16)
    assert cohort.title == "cohort"
    assert "cohort.csv" in cohort.statement


def test_numbers_of_patients_stay_as_written(tmp_path):
    frame = patients_table()
    frame["patient"] = np.arange(24) // 4 + 7.0  # as a column with a missing cell would be
    assert set(load_table(config(write_table(tmp_path, frame, "cohort.parquet"))).patients) == set("789") | {
        *("10", "11", "12")
    }


def test_bags_of_the_same_name_are_different_for_two_patients(tmp_path):
    bags = load_table(config(write_table(tmp_path), bag="eye")).bags
    assert bags[:8].tolist() == [bags[0], bags[0], bags[2], bags[2], bags[4], bags[4], bags[6], bags[6]]
    assert len(set(bags[:8].tolist())) == 4
    by_patient = load_table(config(tmp_path / "cohort.csv")).bags
    assert len(np.unique(by_patient)) == 6


def test_tabular_text_and_subgroups(tmp_path):
    frame = patients_table()
    frame["report"] = "Größe, unverändert"
    frame.loc[0, ["report", "sex"]] = None
    options = {"tabular": ("bcva", "sex"), "text": ("report",), "subgroups": ("sex", "cst")}
    table = load_table(config(write_table(tmp_path, frame), **options))
    assert list(table.tabular) == ["bcva", "sex=F", "sex=M"]
    assert np.isnan(table.tabular["sex=F"][0])
    assert table.tabular["sex=F"][1:5].tolist() == [1, 1, 1, 0]
    assert table.text["report"][:2].tolist() == ["", "Größe, unverändert"]
    assert table.subgroups["sex"][0] == ""
    quartiles = set(table.subgroups["cst"].tolist())
    assert len(quartiles) == 5  # one of them is "", for the missing value
    assert all(" to " in quartile for quartile in quartiles - {""})


def test_a_given_split_is_kept(tmp_path):
    frame = patients_table()
    frame["fold"] = ["train"] * 12 + ["validate"] * 4 + ["Test"] * 8
    table = load_table(config(write_table(tmp_path, frame), split="fold"))
    split = split_table(table, 0.3)
    assert split.train.tolist() == list(range(12))
    assert split.validation.tolist() == list(range(12, 16))
    assert split.test.tolist() == list(range(16, 24))


def test_a_leak_names_the_patients(tmp_path):
    frame = patients_table()
    frame["fold"] = ["train"] * 13 + ["val"] * 4 + ["test"] * 7
    assert problems(write_table(tmp_path, frame), split="fold") == [
        "error patient 0003 is in train and in validation",
        "error patient 0004 is in validation and in test",
    ]


def test_a_split_needs_both_sides_and_known_words(tmp_path):
    frame = patients_table()
    frame["fold"] = ["train"] * 20 + ["holdout"] * 4
    assert problems(write_table(tmp_path, frame), split="fold") == [
        *(
            f'error cohort.csv row {row} column fold: expected train, validation or test, got "holdout"'
            for row in range(22, 26)
        ),
        "error cohort.csv: the split leaves no row for test",
    ]


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("cst", "2,31", '"2,31" is not a number: write a point for the decimals and nothing between thousands'),
        ("cst", "310 um", '"310 um" is not a number: leave out the unit'),
        ("cst", "2021-03-04", '"2021-03-04" is a date, not a number: give days or years'),
        ("cst", "04.03.2021", '"04.03.2021" is a date, not a number: give days or years'),
        ("cst", "inf", '"inf" is not finite'),
        ("cst", "high", '"high" is not a number'),
        (
            "bcva",
            "20/40",
            '"20/40" is a fraction, not a number: convert it, such as acuity to letters or logMAR',
        ),
        ("fluid", "2", 'expected 0 or 1, true or false, yes or no, or empty, got "2"'),
        ("fluid", "maybe", 'expected 0 or 1, true or false, yes or no, or empty, got "maybe"'),
        ("patient", "", "is empty"),
        ("image", " ", "is empty"),
    ],
)
def test_a_bad_cell_is_named_by_file_row_and_column(tmp_path, column, cell, message):
    frame = patients_table().astype(str)
    frame.loc[7, column] = cell
    path = write_table(tmp_path, frame, with_images=False)
    assert problems(path, clinical=("bcva", "cst")) == [f"error cohort.csv row 9 column {column}: {message}"]
    with pytest.raises(UserError, match=rf"^cohort.csv row 9 column {column}: "):
        load_table(config(path, clinical={"bcva": "equal", "cst": {"within": 25}}))


@pytest.mark.parametrize("name", ["cohort.xlsx", "cohort.parquet"])
def test_a_date_and_infinity_in_typed_files(tmp_path, name):
    frame = patients_table()
    frame["visit"] = pd.Timestamp("2021-03-04")
    frame.loc[5, "cst"] = np.inf
    found = problems(write_table(tmp_path, frame, name, with_images=False), clinical={"visit": "equal", "cst": "equal"})
    message = '"2021-03-04 00:00:00" is a date, not a number: give days or years'
    assert found == [
        *(f"error {name} row {row} column visit: {message}" for row in range(2, 26)),
        f'error {name} row 7 column cst: "inf" is not finite',
    ]


def test_a_column_of_numbers_and_words_is_refused_unless_compared_as_text(tmp_path):
    frame = patients_table()
    frame.loc[4, "grade"] = "3"
    path = write_table(tmp_path, frame, with_images=False)
    advice = "is a number among words; to compare cells as text write --data.clinical '{grade: category}'"
    assert problems(path, clinical=("grade",)) == [f'error cohort.csv row 6 column grade: "3" {advice}']
    assert problems(path, clinical={"grade": "category"}) == []


def test_words_for_missing_are_counted_once(tmp_path):
    frame = patients_table()
    frame["cst"] = [str(value) for value in frame["cst"]]  # the missing value becomes "nan"
    frame.loc[9, "cst"] = "NA"
    assert problems(write_table(tmp_path, frame, with_images=False), clinical=("cst",)) == [
        'warning cohort.csv row 5 column cst: "nan" counts as missing (such words are in 2 of 24 cells)'
    ]


def test_errors_are_listed_together_and_the_rest_counted(tmp_path):
    frame = patients_table()
    frame["fluid"] = "?"
    with pytest.raises(UserError) as error:
        load_table(config(write_table(tmp_path, frame, with_images=False)))
    assert str(error.value).count("cohort.csv row") == 5
    assert str(error.value).endswith("; and 19 more: `mmcuda data check` lists all 24")


def test_missing_columns_are_all_named_with_what_was_meant(tmp_path):
    path = write_table(tmp_path, with_images=False)
    with pytest.raises(UserError) as error:
        load_table(config(path, group="patiant", clinical=("cst", "bvca"), bag="x"))
    assert str(error.value).startswith(
        "--data.group: cohort.csv has no column patiant: did you mean patient?. "
        "--data.bag: cohort.csv has no column x; it has image, patient, eye,"
    )
    assert "--data.clinical: cohort.csv has no column bvca: did you mean bcva?" in str(error.value)


def test_one_image_in_two_rows(tmp_path):
    frame = patients_table()
    frame.loc[1, "image"] = frame.loc[0, "image"]
    frame.loc[9, "image"] = frame.loc[2, "image"]
    assert problems(write_table(tmp_path, frame, with_images=False)) == [
        "error cohort.csv row 11 column image: images/002.png is also in row 4, of another patient",
        "warning cohort.csv row 3 column image: images/000.png is also in row 2",
    ]


def test_a_target_that_pretraining_would_see_is_a_warning(tmp_path):
    assert problems(write_table(tmp_path, with_images=False), clinical=("cst", "fluid")) == [
        "warning cohort.csv column fluid: is a clinical label and a target: pretraining sees it"
    ]


def test_images_lie_under_the_root(tmp_path):
    frame = patients_table()
    path = write_table(tmp_path, frame, with_images=False)
    write_images(tmp_path / "elsewhere", frame["image"])
    assert len(load_cohort(config(path, root=tmp_path / "elsewhere")).images) == 24
    with pytest.raises(UserError, match=r"images/000.png: missing \(row 2\); images/001.png: missing"):
        load_cohort(config(path))
    with pytest.raises(UserError, match=r"--data.root must be a folder, got .*/nowhere"):
        load_cohort(config(path, root=tmp_path / "nowhere"))


def test_unicode_and_spaces_in_paths(tmp_path):
    frame = patients_table()
    frame["image"] = [f"Ärzte daten/Bild {row} (größe).png" for row in range(24)]
    folder = tmp_path / "日本 語"
    folder.mkdir()
    assert len(load_cohort(config(write_table(folder, frame))).images) == 24


@pytest.mark.parametrize("option", ["file", "image", "group"])
def test_what_a_table_needs_is_named(tmp_path, option):
    options = {"file": write_table(tmp_path, with_images=False), "image": "image", "group": "patient"} | {option: None}
    with pytest.raises(UserError, match=f"--data.{option} is required for --data table"):
        load_table(DataConfig(source="table", **options))


def test_an_option_of_another_source_is_refused():
    with pytest.raises(UserError, match=r"--data.file has no meaning for --data lidc, only for table"):
        DataConfig(file="cohort.csv")
    with pytest.raises(UserError, match=r"--data.blank has no meaning for --data table"):
        DataConfig(source="table", blank="missing")


def test_a_hundred_thousand_rows_take_seconds(tmp_path):
    frame = patients_table(100_000)
    path = write_table(tmp_path, frame, with_images=False)
    start = time.process_time()
    table = load_table(config(path, clinical="auto", bag="eye", subgroups=("sex",), channels=1))
    assert len(table) == 100_000
    assert time.process_time() - start < 10  # 2 s of one core

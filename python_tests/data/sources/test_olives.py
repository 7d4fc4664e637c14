"""A folder in the layout of OLIVES, read by the real adapter."""

import numpy as np
import pandas as pd
import pytest
from phantoms.olives import BIOMARKERS, PATH, write_olives

from mmcuda import Equal, Within
from mmcuda.data import DataConfig, load_cohort, load_table, read_table, split_table
from mmcuda.errors import UserError

VIP_CUP = [BIOMARKERS[index] for index in (4, 5, 6, 8, 10, 11)]


@pytest.fixture(scope="module")
def olives(tmp_path_factory):
    return write_olives(tmp_path_factory.mktemp("olives"), patients=8, scans=2, size=(63, 62))


def config(folder, **options):
    return DataConfig(source="olives", root=folder.root, image_size=32, cache_dir=folder.root / "cache", **options)


def test_all_images_are_there_and_few_have_targets(olives):
    table = load_table(config(olives))
    truth = olives.images
    assert len(table) == len(truth)
    assert table.image_names.tolist() == truth["File_Path"].str.lstrip("/").tolist()
    assert table.patients.tolist() == truth["Patient_ID"].astype(str).tolist()
    assert len(np.unique(table.bags)) == truth["Eye_ID"].nunique()
    assert list(table.targets) == VIP_CUP
    graded = truth["visit"].isin([0, 2]).to_numpy()
    for name, values in table.targets.items():
        assert np.isnan(values[~graded]).all()
        known = np.isfinite(values)
        assert 0 <= (graded & ~known).sum() <= 2  # a few cells are missing
        np.testing.assert_array_equal(values[known], truth[name][known])
    assert set(table.subgroups["Trial"]) == {"PRIME", "TREX-DME"}
    assert "96 eyes of 87 patients" in table.statement


def test_clinical_values_are_those_of_the_larger_file(olives):
    clinical = load_table(config(olives)).clinical
    assert {name: label.relation for name, label in clinical.items()} == {"BCVA": Equal(), "CST": Within(25.0)}
    known = np.isfinite(clinical["CST"].values)
    assert (~known).sum() == 2  # one visit
    np.testing.assert_array_equal(clinical["CST"].values[known], olives.images["CST"][known])


def test_the_split_is_by_patient(olives):
    table = load_table(config(olives))
    split = split_table(table, 0.3)
    assert not set(table.patients[split.train]) & set(table.patients[split.test])


def test_pixels_come_from_every_kind_of_file(olives):
    assert olives.images["File_Path"].str.rsplit(".").str[-1].nunique() == 3
    cohort = load_cohort(config(olives))
    assert cohort.images.shape == (len(olives.images), 1, 32, 32)
    assert cohort.images.std(axis=(1, 2, 3)).min() > 5


def test_all_means_the_biomarkers_that_can_be_learnt(olives):
    table = load_table(config(olives, targets="all"))
    for name in BIOMARKERS:
        values = pd.read_csv(olives.biomarker_table)[name]
        assert (name in table.targets) == (values.nunique() == 2)
    assert table.notes[0].startswith("biomarkers left out, since no scan or every scan has them: ")
    assert list(load_table(config(olives, targets=("DRIL", "VMT"))).targets) == ["DRIL", "VMT"]


@pytest.mark.parametrize("prefix", ["", "/data/Datasets"])
@pytest.mark.parametrize("folders", [("ml_centric_labels", "ml_centric_labels"), ("full_labels", "ml_centric_labels")])
def test_older_paths_and_either_label_folder(tmp_path, prefix, folders):
    folder = write_olives(
        tmp_path, 2, 2, 1, (16, 16), prefix=prefix, clinical_folder=folders[0], biomarker_folder=folders[1]
    )
    assert len(load_cohort(config(folder)).images) == len(folder.images)


@pytest.mark.parametrize("kept", ["clinical_table", "biomarker_table"])
def test_one_of_the_two_files_is_enough(tmp_path, kept):
    folder = write_olives(tmp_path, 2, 3, 1, (16, 16))
    other = "biomarker_table" if kept == "clinical_table" else "clinical_table"
    getattr(folder, other).unlink()
    table = load_table(config(folder))
    if kept == "clinical_table":
        assert len(table) == len(folder.images)
        assert table.targets == {}
    else:
        assert len(table) == folder.images["visit"].isin([0, 2]).sum()
        assert list(table.targets) == VIP_CUP
    assert list(table.clinical) == ["BCVA", "CST"]
    getattr(folder, kept).unlink()
    with pytest.raises(UserError, match=r"holds neither Clinical_Data_Images.xlsx nor Biomarker_Clinical_Data_Images"):
        load_table(config(folder))


def edit(folder, change):
    """Change the table of the biomarkers as it is written."""
    frame = pd.read_csv(folder.biomarker_table, dtype=str, keep_default_na=False)
    change(frame)
    frame.to_csv(folder.biomarker_table, index=False)


def test_a_bad_cell_is_named_in_the_file_it_is_in(tmp_path):
    folder = write_olives(tmp_path, 2, 3, 1, (16, 16))
    edit(folder, lambda frame: frame.__setitem__("DRT/ME", ["0", "yes?", *frame["DRT/ME"][2:]]))
    clinical = pd.read_excel(folder.clinical_table).astype({"BCVA": object})
    clinical.loc[3, "BCVA"] = "20/40"
    clinical.to_excel(folder.clinical_table, index=False)
    errors = [str(problem) for problem in read_table(config(folder))[1]]
    assert [error.split(":")[0] for error in errors] == [
        "Clinical_Data_Images.xlsx row 5 column BCVA",
        "Biomarker_Clinical_Data_Images.csv row 3 column DRT/ME",
    ]


def test_an_image_that_only_the_smaller_file_has_is_kept_and_named_there(tmp_path):
    folder = write_olives(tmp_path, 2, 3, 1, (16, 16))
    clinical = pd.read_excel(folder.clinical_table)
    alone = pd.read_csv(folder.biomarker_table)[PATH].iloc[-1]
    clinical[clinical["File_Path"] != alone].to_excel(folder.clinical_table, index=False)
    edit(folder, lambda frame: frame.__setitem__("BCVA", [*frame["BCVA"][:-1], "high"]))
    table, problems = read_table(config(folder))
    assert len(table) == len(folder.images)
    last = 1 + len(pd.read_csv(folder.biomarker_table))
    assert [str(problem) for problem in problems] == [
        f'Biomarker_Clinical_Data_Images.csv row {last} column BCVA: "high" is not a number'
    ]


def test_a_scan_graded_twice_is_refused(tmp_path):
    folder = write_olives(tmp_path, 2, 2, 1, (16, 16))
    edit(folder, lambda frame: frame.__setitem__(PATH, [frame[PATH][1], *frame[PATH][1:]]))
    with pytest.raises(UserError, match=r"Biomarker_Clinical_Data_Images.csv rows 2 and 3: expected one row for TREX"):
        load_table(config(folder))


def test_the_authors_split_is_refused_with_the_leak_named(olives):
    with pytest.raises(
        UserError, match=r"--data.split authors: splits by eye, .*; patient 201 is in train and in test"
    ):
        load_table(config(olives, split="authors"))


def test_the_authors_split_without_its_leak(olives):
    table = load_table(config(olives, split="authors-without-leak"))
    split = split_table(table, 0.3)
    eyes = dict(zip(olives.images["File_Path"].str.lstrip("/"), olives.images["Eye_ID"], strict=True))
    assert {eyes[name] <= 10 for name in table.image_names[split.test]} == {True}
    assert {eyes[name] > 10 for name in table.image_names[split.train]} == {True}
    assert "201" not in table.patients[split.train]
    assert len(table) < len(olives.images)

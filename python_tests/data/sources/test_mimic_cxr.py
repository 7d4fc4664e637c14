"""A folder in the layout of MIMIC-CXR-JPG, read by the real adapter."""

import gzip
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from phantoms.mimic import LABELS, write_mimic

from mmcuda import Equal
from mmcuda.data import DataConfig, load_cohort, load_table, read_table, split_table
from mmcuda.errors import UserError


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    return write_mimic(tmp_path_factory.mktemp("mimic"), patients=10, size=(40, 48))


def config(folder, **options):
    return DataConfig(source="mimic-cxr", root=folder.root, image_size=32, cache_dir=folder.root / "cache", **options)


def frontal(folder):
    return folder.images[folder.images["ViewPosition"].isin(["PA", "AP"])]


def test_frontal_images_in_the_official_split(mimic):
    cohort = load_cohort(config(mimic))
    truth = frontal(mimic)
    assert cohort.images.shape == (len(truth), 1, 32, 32)
    assert cohort.table.image_names.tolist() == truth["path"].tolist()
    assert cohort.patients.tolist() == truth["subject_id"].astype(str).tolist()
    assert len(np.unique(cohort.bags)) == truth["study_id"].nunique()
    assert cohort.table.notes == (f"{len(truth)} of {len(mimic.images)} images kept: view PA or AP",)
    split = split_table(cohort.table, 0.3)
    assert (truth["split"].iloc[split.train] == "train").all()
    assert (truth["split"].iloc[split.validation] == "validate").all()
    assert (truth["split"].iloc[split.test] == "test").all()
    assert min(len(rows) for rows in split.sides.values()) > 0
    assert set(cohort.subgroups["ViewPosition"]) == {"PA", "AP"}


def test_all_views_and_a_split_by_patient(mimic):
    table = load_table(config(mimic, views=(), split="patients"))
    assert len(table) == len(mimic.images)
    assert table.split is None
    with pytest.raises(UserError, match=r"--data.views must name some of AP, LATERAL, LL, PA, got pa"):
        load_table(config(mimic, views=("pa",)))


@pytest.mark.parametrize("uncertain", ["positive", "negative", "missing"])
@pytest.mark.parametrize("blank", ["positive", "negative", "missing"])
def test_uncertain_and_blank_labels_count_as_said(mimic, uncertain, blank):
    value = {"positive": 1.0, "negative": 0.0, "missing": np.nan}
    table = load_table(config(mimic, uncertain=uncertain, blank=blank))
    written = pd.read_csv(mimic.label_table).set_index("study_id").reindex(frontal(mimic)["study_id"])
    assert list(table.targets) == list(LABELS)
    for name, found in table.targets.items():
        expected = written[name].fillna(value[blank]).replace(-1.0, value[uncertain])
        expected[written["subject_id"].isna()] = np.nan  # the study without a row
        np.testing.assert_array_equal(found, expected)
    assert f"uncertain, counts here as {uncertain}" in table.statement


def test_the_defaults_leave_the_uncertain_out_and_take_blanks_as_negative(mimic):
    usual, named = (
        load_table(config(mimic, **options)) for options in ({}, {"uncertain": "missing", "blank": "negative"})
    )
    for name, values in usual.targets.items():
        np.testing.assert_array_equal(values, named.targets[name])


def test_labels_may_serve_as_clinical_ones(mimic):
    table = load_table(config(mimic, clinical=("Edema", "Atelectasis")))
    relations = {name: label.relation for name, label in table.clinical.items()}
    assert relations == {"Edema": Equal(), "Atelectasis": Equal()}
    assert list(table.targets) == [name for name in LABELS if name not in ("Edema", "Atelectasis")]
    assert list(load_table(config(mimic, targets="Edema")).targets) == ["Edema"]


def test_reports_where_there_are_any(mimic, tmp_path):
    reports = load_table(config(mimic, text=("report",))).text["report"]
    assert all(report.startswith("FINAL REPORT") for report in reports)
    without = write_mimic(tmp_path, patients=4, reports=False, size=(8, 8))
    assert set(load_table(config(without, text=("report",))).text["report"]) == {""}


@dataclass
class Cells:
    """Changes cells of a compressed table."""

    path: object

    def set(self, row, column, value):
        frame = pd.read_csv(self.path, dtype=str, keep_default_na=False)
        frame.loc[row, column] = value
        with gzip.open(self.path, "wt", newline="") as file:
            frame.to_csv(file, index=False)


def test_a_bad_label_is_named_in_its_file_once_an_image(tmp_path):
    folder = write_mimic(tmp_path, patients=4, size=(8, 8))
    Cells(folder.label_table).set(0, "Edema", "2")
    problems = read_table(config(folder, views=()))[1]
    wanted = "expected 0 or 1, true or false, yes or no, or empty"
    assert [str(problem) for problem in problems] == [
        f'mimic-cxr-2.0.0-chexpert.csv.gz row 2 column Edema: {wanted}, got "2"'
    ]


def test_a_patient_moved_to_another_split_is_a_leak(tmp_path):
    folder = write_mimic(tmp_path, patients=4, size=(8, 8))
    Cells(folder.split_table).set(0, "split", "test")
    with pytest.raises(UserError, match=r"^patient 10000032 is in train and in test$"):
        load_table(config(folder, views=()))


@pytest.mark.parametrize("table", ["split_table", "metadata_table", "label_table"])
def test_a_missing_table_is_named(tmp_path, table):
    folder = write_mimic(tmp_path, patients=2, size=(8, 8))
    getattr(folder, table).unlink()
    with pytest.raises(UserError, match=rf"--data.root {tmp_path} holds no mimic-cxr-\*-\w+.csv\*"):
        load_table(config(folder))


def test_a_cut_off_table_is_named(tmp_path):
    folder = write_mimic(tmp_path, patients=4, size=(8, 8))
    folder.metadata_table.write_bytes(folder.metadata_table.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"metadata.csv.gz is cut off"):
        load_table(config(folder))

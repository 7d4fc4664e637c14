"""The rendered stand-ins have the layouts of the real sets, and labels that say what is in the picture."""

import numpy as np
import pandas as pd
import pytest
from phantoms.mimic import LABELS, write_mimic
from phantoms.olives import BIOMARKERS, PATH, write_olives
from PIL import Image


@pytest.fixture(scope="module")
def olives(tmp_path_factory):
    return write_olives(tmp_path_factory.mktemp("olives"), patients=8, visits=3, scans=6, size=(84, 82))


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    return write_mimic(tmp_path_factory.mktemp("mimic"), patients=20, size=(64, 72))


def test_olives_has_the_tables_of_the_real_set(olives):
    clinical = pd.read_excel(olives.clinical_table)
    graded = pd.read_csv(olives.biomarker_table)
    assert list(clinical) == ["File_Path", "BCVA", "CST", "Eye_ID", "Patient_ID"]
    assert list(graded)[:2] == [PATH, "Scan (n/49)"]
    assert list(graded)[-4:] == ["Eye_ID", "BCVA", "CST ", "Patient_ID"]
    assert all((olives.root / path[1:]).is_file() for path in clinical["File_Path"])
    assert {path.rsplit(".", 1)[1] for path in clinical["File_Path"]} == {"tif", "png", "jpg"}
    assert clinical["BCVA"].isna().sum() == clinical["CST"].isna().sum() == 6
    assert 0 < graded[list(BIOMARKERS)].isna().sum().sum() < 20
    assert len(clinical) == 3 * 12 * 6  # eight patients, four of them with two eyes
    assert len(graded) == 2 * 12 * 6


def test_fluid_thickens_the_retina_and_costs_letters(olives):
    images = olives.images
    fluid = images["Fluid (IRF)"] == 1
    assert images["CST"][fluid].mean() > images["CST"][~fluid].mean() + 30
    assert images["BCVA"][fluid].mean() < images["BCVA"][~fluid].mean() - 5


def test_the_same_seed_writes_the_same_images(tmp_path):
    paths = [write_olives(tmp_path / name, patients=1, visits=1, scans=2, size=(40, 30)) for name in "ab"]
    pixels = [[np.asarray(Image.open(f.root / p[1:])) for p in f.images["File_Path"]] for f in paths]
    np.testing.assert_array_equal(*pixels)
    assert pixels[0][0].shape == (30, 40)
    assert pixels[0][0].dtype == np.uint8


def test_mimic_has_the_tables_of_the_real_set(mimic):
    split, metadata, labels = map(pd.read_csv, (mimic.split_table, mimic.metadata_table, mimic.label_table))
    assert list(split) == ["dicom_id", "study_id", "subject_id", "split"]
    assert set(split["split"]) == {"train", "validate", "test"}
    assert split.groupby("subject_id")["split"].nunique().max() == 1
    assert {"PA", "AP", "LATERAL"} <= set(metadata["ViewPosition"].dropna())
    assert metadata["ViewPosition"].isna().any()
    assert list(labels) == ["subject_id", "study_id", *LABELS]
    assert set(np.unique(labels[list(LABELS)].to_numpy().ravel()[: 14 * 20]).tolist()) >= {-1.0, 0.0, 1.0}
    for row in metadata.itertuples():
        folder = mimic.root / "files" / f"p{str(row.subject_id)[:2]}" / f"p{row.subject_id}" / f"s{row.study_id}"
        assert (folder / f"{row.dicom_id}.jpg").is_file()
        assert folder.with_suffix(".txt").is_file()

"""OLIVES: optical coherence tomography of the retina with clinical values for all scans and biomarkers for few."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from mmcuda.data.assemble import Roles, assemble, require
from mmcuda.data.config import DataConfig
from mmcuda.data.image_files import open_images
from mmcuda.data.problems import Problem
from mmcuda.data.sheet import Sheet, read_sheet
from mmcuda.data.table import CohortTable
from mmcuda.errors import UserError
from mmcuda.targets import TargetSpec

LABEL_FOLDERS = ("OLIVES_Dataset_Labels", "")  # under the data set's folder
LABEL_SUBFOLDERS = ("ml_centric_labels", "full_labels", "")
CLINICAL_FILE, BIOMARKER_FILE = "Clinical_Data_Images.xlsx", "Biomarker_Clinical_Data_Images.csv"
IMAGE_FOLDERS = ("", "OLIVES")
PATH, BIOMARKER_PATH = "File_Path", "Path (Trial/Arm/Folder/Visit/Eye/Image Name)"
OLD_PREFIX = "data/Datasets/"
PATIENT, EYE, TRIAL = "Patient_ID", "Eye_ID", "Trial"
TRIALS = {"Prime_FULL": "PRIME", "TREX DME": "TREX-DME"}  # by the first folder of a path
CLINICAL = {"BCVA": "equal", "CST": {"within": 25.0}}
BIOMARKERS = (
    "Atrophy / thinning of retinal layers",
    "Disruption of EZ",
    "DRIL",
    "IR hemorrhages",
    "IR HRF",
    "Partially attached vitreous face",
    "Fully attached vitreous face",
    "Preretinal tissue/hemorrhage",
    "Vitreous debris",
    "VMT",
    "DRT/ME",
    "Fluid (IRF)",
    "Fluid (SRF)",
    "Disruption of RPE",
    "Drusen (sub-RPE)",
    "Drusen (RPD)",
    "GA/MA areas",
    "PED (serous)",
    "PED (fibrovascular)",
    "SHRM",
)
VIP_CUP = (  # B1 to B6 of the challenge
    "IR HRF",
    "Partially attached vitreous face",
    "Fully attached vitreous face",
    "Vitreous debris",
    "DRT/ME",
    "Fluid (IRF)",
)
AUTHORS_TEST_EYES = (*range(1, 11), *range(57, 67))  # of the first fold in the authors' repository
AUTHORS, AUTHORS_CLEAN = "authors", "authors-without-leak"

STATEMENT = (
    "OLIVES (Prabhushankar et al., NeurIPS 2022 datasets track, Zenodo 10.5281/zenodo.7105232): scans of 96 eyes of 87 "
    "patients in two trials, PRIME and TREX-DME. Visual acuity (BCVA) and central thickness (CST) are measured once a "
    "visit and hold for its 49 scans; biomarkers were graded in the scans of 192 visits. Scans of a visit look alike, "
    "so that the number of patients, not that of images, says how sure a result is."
)


def read_olives(config: DataConfig) -> tuple[CohortTable, list[Problem]]:
    """Return the table of the folder ``config.root``, and everything that is wrong with its cells.

    All images with clinical values are in it; targets are known for those that the biomarkers' file names, too. One of
    the two files is enough.

    Raises:
        UserError: if the folder holds neither file, or a column is missing.
    """
    root: Path = require(config, "root")
    sheet = _join_files(root)
    targets, notes = _targets(sheet, config.targets)
    faults: list[Problem] = []
    if config.split in (AUTHORS, AUTHORS_CLEAN):
        sheet, remark, faults = _split_as_authors(sheet, config.split == AUTHORS_CLEAN)
        notes += remark
    roles = Roles.of(
        config,
        image=PATH,
        group=PATIENT,
        bag=config.bag or EYE,
        clinical=CLINICAL if config.clinical is None else config.clinical,
        targets=targets,
        subgroups=config.subgroups or (TRIAL,),
        split=AUTHORS if config.split == AUTHORS_CLEAN else config.split,
    )
    images = partial(open_images, _image_folder(root, sheet), channels=config.channels)
    table, problems = assemble(sheet, roles, images, "olives", "OLIVES", STATEMENT, notes)
    return table, faults + problems


def _join_files(root: Path) -> Sheet:
    """Return one sheet of both files, with paths below the data set's folder and ids without decimals."""
    sheets = {}
    for name, path_column in ((CLINICAL_FILE, PATH), (BIOMARKER_FILE, BIOMARKER_PATH)):
        found = [root / folder / sub / name for folder in LABEL_FOLDERS for sub in LABEL_SUBFOLDERS]
        file = next((path for path in found if path.is_file()), None)
        if file is not None:
            sheets[name] = _tidy(read_sheet(file), path_column)
    if not sheets:
        raise UserError(
            f"--data.root {root} holds neither {CLINICAL_FILE} nor {BIOMARKER_FILE}, nor do its subfolders "
            f"{LABEL_FOLDERS[0]}/{{{','.join(LABEL_SUBFOLDERS[:2])}}}"
        )
    if len(sheets) == 1:
        return next(iter(sheets.values()))
    clinical, biomarkers = sheets[CLINICAL_FILE], sheets[BIOMARKER_FILE]
    joined = clinical.join(biomarkers, clinical.frame[PATH], biomarkers.frame[PATH])
    alone = ~biomarkers.frame[PATH].isin(clinical.frame[PATH])
    return joined.append(biomarkers.take(alone.to_numpy())) if alone.any() else joined


def _tidy(sheet: Sheet, path_column: str) -> Sheet:
    sheet.check_columns({"root": (path_column, EYE, PATIENT)})
    paths = sheet.texts(path_column).str.replace("\\", "/").str.lstrip("/").str.removeprefix(OLD_PREFIX)
    trials = paths.str.split("/", n=1).str[0].replace(TRIALS)
    ids = {column: sheet.texts(column).str.replace(r"\.0+$", "", regex=True) for column in (EYE, PATIENT)}
    return sheet.with_columns({PATH: paths, TRIAL: trials} | ids)


def _split_as_authors(sheet: Sheet, without_leak: bool) -> tuple[Sheet, tuple[str, ...], list[Problem]]:
    """Return the sheet with the authors' split by eye, and what to say of the patients who are on both sides."""
    in_test = sheet.texts(EYE).isin([str(eye) for eye in AUTHORS_TEST_EYES])
    sheet = sheet.with_columns({AUTHORS: np.where(in_test, "test", "train")})
    patients = sheet.texts(PATIENT)
    leaking = patients.isin(patients[in_test]) & ~in_test
    if without_leak:
        note = f"{leaking.sum():,} training images left out: the other eye of their patients is in the test set"
        return sheet.take(~leaking.to_numpy()), (note,), []
    if not leaking.any():
        return sheet, (), []
    advice = (
        f"splits by eye, not by patient; {AUTHORS_CLEAN} leaves out the training images of patients in the test set"
    )
    return sheet, (), [Problem("error", f"--data.split {AUTHORS}", advice)]


def _targets(sheet: Sheet, wanted: TargetSpec) -> tuple[TargetSpec, tuple[str, ...]]:
    """Return the target columns that ``wanted`` means, and a note on biomarkers that are left out."""
    if wanted == "all":
        graded = [name for name in BIOMARKERS if name in sheet.frame]
        usable = tuple(name for name in graded if {"0", "1"} <= set(sheet.texts(name).str.removesuffix(".0")))
        unused = ", ".join(name for name in graded if name not in usable)
        return usable, (f"biomarkers left out, since no scan or every scan has them: {unused}",) if unused else ()
    if wanted is None and BIOMARKERS[0] not in sheet.frame:
        return (), ()
    if wanted is None or wanted == "b1-b6":
        return VIP_CUP, ()
    return wanted, ()


def _image_folder(root: Path, sheet: Sheet) -> Path:
    """Return the folder below which the images lie: the data set's own, or one of IMAGE_FOLDERS in it."""
    first = str(sheet.frame[PATH].iloc[0]).split("/", maxsplit=1)[0]
    return next((root / folder for folder in IMAGE_FOLDERS if (root / folder / first).is_dir()), root)

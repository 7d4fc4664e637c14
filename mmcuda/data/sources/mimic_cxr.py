"""MIMIC-CXR-JPG: chest radiographs with labels that were read from their reports by a program."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from mmcuda.data.assemble import Roles, assemble, require
from mmcuda.data.config import DataConfig
from mmcuda.data.image_files import open_images
from mmcuda.data.problems import Problem
from mmcuda.data.sheet import Sheet, read_sheet
from mmcuda.data.table import CohortTable
from mmcuda.errors import UserError
from mmcuda.targets import TargetSpec

TABLES = ("split", "metadata", "chexpert")
IMAGE, STUDY, PATIENT, VIEW, REPORT, SPLIT = "dicom_id", "study_id", "subject_id", "ViewPosition", "report", "split"
PATH = "path"
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
CELLS = {"positive": "1", "negative": "0", "missing": ""}  # by the policy of the options uncertain and blank

STATEMENT = (
    "MIMIC-CXR-JPG (Johnson et al., PhysioNet): chest radiographs of one hospital. The labels were read from the "
    "reports by a program (CheXpert), not from the images by an expert; a label of -1, uncertain, counts here as "
    "{uncertain}, and a blank, not mentioned, as {blank}."
)


def read_mimic_cxr(config: DataConfig) -> tuple[CohortTable, list[Problem]]:
    """Return the table of the folder ``config.root``, and everything that is wrong with its cells.

    Raises:
        UserError: if a table of the data set or a column is missing, or no image has one of the views.
    """
    root: Path = require(config, "root")
    split, metadata, labels = (read_sheet(_find(root, name)) for name in TABLES)
    split.check_columns({"root": (IMAGE, STUDY, PATIENT, SPLIT)})
    metadata.check_columns({"root": (IMAGE, VIEW)})
    labels.check_columns({"root": (STUDY, *LABELS)})
    sheet = split.join(metadata, split.texts(IMAGE), metadata.texts(IMAGE))
    sheet, notes = _with_views(sheet, config.views)
    sheet = _with_paths(_with_labels(sheet, labels, config))
    if REPORT in config.text:
        sheet = sheet.with_columns({REPORT: _reports(root, sheet)})
    roles = Roles.of(
        config,
        image=PATH,
        group=PATIENT,
        bag=config.bag or STUDY,
        targets=_targets(sheet, config),
        subgroups=config.subgroups or (VIEW,),
        split={"official": SPLIT, "patients": None}.get(config.split or "official", config.split),
    )
    images = partial(open_images, root, channels=config.channels)
    statement = STATEMENT.format(uncertain=config.uncertain, blank=config.blank)
    return assemble(sheet, roles, images, "mimic-cxr", "MIMIC-CXR-JPG", statement, notes)


def _find(root: Path, table: str) -> Path:
    """Return the path of a table, whatever its version and whether or not it is compressed."""
    pattern = f"mimic-cxr-*-{table}.csv*"
    found = sorted(root.glob(pattern))
    if not found:
        raise UserError(f"--data.root {root} holds no {pattern}")
    return found[0]


def _with_views(sheet: Sheet, views: tuple[str, ...]) -> tuple[Sheet, tuple[str, ...]]:
    """Keep the images of the wanted views, all if none is named."""
    if not views:
        return sheet, ()
    given = sheet.texts(VIEW)
    kept = given.isin(views)
    if not kept.any():
        known = ", ".join(sorted(set(given) - {""}))
        raise UserError(f"--data.views must name some of {known}, got {', '.join(views)}")
    note = f"{kept.sum():,} of {len(sheet):,} images kept: view {' or '.join(views)}"
    return sheet.take(kept.to_numpy()), (note,)


def _with_labels(sheet: Sheet, labels: Sheet, config: DataConfig) -> Sheet:
    """Join the labels of the studies; uncertain and blank cells as the options say, studies without a row missing."""
    sheet = sheet.join(labels, sheet.texts(STUDY), labels.texts(STUDY))
    has_row = sheet.joined[LABELS[0]].files != ""
    columns = {}
    for name in LABELS:
        cells = sheet.texts(name).str.removesuffix(".0")
        cells = cells.replace({"-1": CELLS[config.uncertain], "": CELLS[config.blank]})
        columns[name] = cells.where(has_row, "")
    return sheet.with_columns(columns)


def _study_folders(sheet: Sheet) -> pd.Series:
    """Return the folder of every image's study, such as files/p10/p10000032/s50414267."""
    patients = sheet.texts(PATIENT)
    return "files/p" + patients.str[:2] + "/p" + patients + "/s" + sheet.texts(STUDY)


def _with_paths(sheet: Sheet) -> Sheet:
    return sheet.with_columns({PATH: _study_folders(sheet) + "/" + sheet.texts(IMAGE) + ".jpg"})


def _reports(root: Path, sheet: Sheet) -> pd.Series:
    """Return the report of every image's study, "" where there is none: they are a data set of their own."""
    folders = _study_folders(sheet)

    def read(folder: str) -> str:
        path = root / f"{folder}.txt"
        return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""

    return folders.map({folder: read(folder) for folder in folders.unique()})


def _targets(sheet: Sheet, config: DataConfig) -> TargetSpec:
    """Return the target columns, by default all labels that do not serve as clinical ones."""
    if config.targets is None or config.targets == "all":
        clinical = config.clinical if isinstance(config.clinical, dict | tuple) else ()
        return tuple(name for name in LABELS if name not in clinical)
    return config.targets

"""The command predict: the probabilities of a table's or a folder's images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmcuda.data import DataConfig, load_cohort, load_table
from mmcuda.data.columns import read_names
from mmcuda.data.image_formats import SUFFIXES
from mmcuda.data.problems import raise_errors
from mmcuda.data.sheet import read_sheet
from mmcuda.errors import UserError
from mmcuda.models.description import ModelDescription
from mmcuda.models.storage import find_checkpoint
from mmcuda.predict.config import PredictConfig
from mmcuda.predict.images import check_reader, file_source, read_batches
from mmcuda.predict.model import load
from mmcuda.targets import Classes, output_columns
from mmcuda.train.checkpoint import CONFIG, load_data
from mmcuda.train.folder import new_file, write_text
from mmcuda.train.screen import LABEL

Batches = Iterator[npt.NDArray[np.uint8]]
Columns = dict[str, npt.NDArray[Any]]


def predict_command(checkpoint: Path, options: PredictConfig, out: Path) -> None:
    """Write image, patient (where it is known) and the predictions of every target of each image to ``out`` (.csv).

    Raises:
        UserError: if there is no classifier, no image, or an image that cannot be read; then nothing is written.
    """
    place, out = find_checkpoint(checkpoint), new_file(out, (".csv",))
    model = load(place)
    if options.images:
        columns, batches = images_of_folder(options.images, model.description, options.batch_size)
    elif options.data != DataConfig():
        columns, batches = images_of_table(options.data, model.description, options.batch_size)
    else:
        columns, batches = images_of_training(place, options.batch_size)
    scores = np.concatenate([model.predict(batch, options.batch_size) for batch in batches])
    found = output_columns(model.targets)
    for name, target in model.targets.items():
        if isinstance(target, Classes):
            columns[name] = target.written(target.decide(scores[:, found[name]]))
        columns |= dict(zip(target.columns(name), scores[:, found[name]].T, strict=True))
    table = pd.DataFrame(columns)
    write_text(out, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    print(f"{'scores':<{LABEL}}{len(table):,} images, targets: {', '.join(model.targets)}, in {out}")


def images_of_folder(folder: Path, model: ModelDescription, batch_size: int) -> tuple[Columns, Batches]:
    """Return the names of the images in a folder, sorted, and their pixels."""
    if not folder.is_dir():
        raise UserError(f"--images must be a folder, got {folder}")
    found = [
        Path(place, name) for place, _, names in os.walk(folder) for name in names if name.lower().endswith(SUFFIXES)
    ]
    if not found:
        raise UserError(f"--images must be a folder with images, got none in {folder}")
    names = np.array(sorted(str(path.relative_to(folder)) for path in found), dtype=str)
    return {"image": names}, read_batches(file_source(folder, names, model), model.image_size, batch_size)


def images_of_table(data: DataConfig, model: ModelDescription, batch_size: int) -> tuple[Columns, Batches]:
    """Return image and patient of each row of a table, and their pixels; labels are not read."""
    if data.source == "table" and data.file and data.image and not data.group:
        sheet = read_sheet(data.file)
        sheet.check_columns({"image": [data.image]})
        names, problems = read_names(sheet, data.image)
        raise_errors(problems)
        source = file_source(data.root or data.file.parent, names, model)
        return {"image": names}, read_batches(source, model.image_size, batch_size, sheet.row_numbers)
    channels: Any = None if data.source == "lidc" else len(model.channels)
    table = load_table(replace(data, clinical=None, targets=None, channels=channels))
    check_reader(table.images.version, model)
    columns = {"image": table.image_names, "patient": table.patients}
    return columns, read_batches(table.images, model.image_size, batch_size, table.row_numbers)


def images_of_training(place: Path, batch_size: int) -> tuple[Columns, Batches]:
    """Return image and patient of each row of the cohort that a checkpoint was trained on, and their pixels."""
    if not (place / CONFIG).is_file():
        raise UserError(f"{place} does not say which images to predict: give --images FOLDER, or --data table ...")
    cohort = load_cohort(load_data(place))
    parts = (cohort.images[start : start + batch_size] for start in range(0, len(cohort.images), batch_size))
    return {"image": cohort.table.image_names, "patient": cohort.patients}, parts

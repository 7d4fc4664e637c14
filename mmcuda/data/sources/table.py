"""A table of the user's own images: one file, a row an image."""

from __future__ import annotations

from functools import partial

from mmcuda.data.assemble import Roles, assemble, require
from mmcuda.data.config import DataConfig
from mmcuda.data.image_files import open_images
from mmcuda.data.problems import Problem
from mmcuda.data.sheet import read_sheet
from mmcuda.data.table import CohortTable
from mmcuda.errors import UserError

STATEMENT = (
    "A table of the user's own images, {file}. How they were collected, by whom and by which rules they were labelled, "
    "and whom they represent is not known to mmcuda and limits what the numbers say."
)


def read_own_table(config: DataConfig) -> tuple[CohortTable, list[Problem]]:
    """Return the table of ``config.file``, and everything that is wrong with its cells.

    Raises:
        UserError: if the file, the images' folder or a column is missing.
    """
    file = require(config, "file")
    require(config, "image")
    require(config, "group")
    root = config.root or file.parent
    if not root.is_dir():
        raise UserError(f"--data.root must be a folder, got {root}")
    images = partial(open_images, root, channels=config.channels)
    statement = STATEMENT.format(file=file.name)
    return assemble(read_sheet(file), Roles.of(config), images, "table", file.stem, statement)

"""From a configuration to a table, and to a cohort with its pixels."""

from __future__ import annotations

import importlib

from mmcuda.data.cohort import Cohort
from mmcuda.data.config import DataConfig
from mmcuda.data.image_cache import cached_images
from mmcuda.data.problems import Problem, raise_errors
from mmcuda.data.split import split_table
from mmcuda.data.table import CohortTable

READERS = {  # by the name of the source: module under mmcuda.data.sources, function
    "lidc": ("lidc", "read_lidc"),
    "table": ("table", "read_own_table"),
    "olives": ("olives", "read_olives"),
    "mimic-cxr": ("mimic_cxr", "read_mimic_cxr"),
}


def read_table(config: DataConfig) -> tuple[CohortTable, list[Problem]]:
    """Read a table and everything that is wrong with its cells; no pixels.

    A bad cell counts as missing, so that all problems come at once.

    Raises:
        UserError: if there is no table to speak of: a file or a column is missing, a package is not installed.
    """
    module, function = READERS[config.source]
    table, problems = getattr(importlib.import_module(f"mmcuda.data.sources.{module}"), function)(config)
    return table, problems


def load_table(config: DataConfig) -> CohortTable:
    """Read a table whose cells are all well.

    Raises:
        UserError: as :func:`read_table`, or naming the first bad cells by file, row and column.
    """
    table, problems = read_table(config)
    raise_errors(problems)
    return table


def load_cohort(config: DataConfig) -> Cohort:
    """Load a table, its pixels, which are decoded once and then come from the cache, and its split.

    Raises:
        UserError: as :func:`load_table`, or if an image cannot be read, the cache not written, or one patient is all.
    """
    table = load_table(config)
    images = cached_images(table, config.image_size, config.cache_dir)
    return Cohort(table, images, split_table(table, config.test_fraction))

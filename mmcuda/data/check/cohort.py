"""The check of a whole cohort: its table, its images, its split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcuda.data.check.copies import blank_problems, copy_problems
from mmcuda.data.check.labels import label_problems, target_problems
from mmcuda.data.check.summary import summarise_table
from mmcuda.data.cohort import Cohort
from mmcuda.data.config import DataConfig
from mmcuda.data.decode import ImageFacts, examine_images
from mmcuda.data.image_cache import ImageCache
from mmcuda.data.load import read_table
from mmcuda.data.problems import Problem, raise_errors
from mmcuda.data.split import SPLIT_SEED, Split, given_split, split_by_patient
from mmcuda.data.table import CohortTable
from mmcuda.errors import UserError

SIZES_SHOWN = 10


@dataclass(frozen=True)
class CohortCheck:
    """What a check found."""

    summary: dict[str, Any]  # the content of cohort.json, and what is known of the images and of missing cells
    problems: list[Problem]  # errors first

    def count(self, severity: str) -> int:
        """Return the number of errors or warnings."""
        return sum(problem.severity == severity for problem in self.problems)


def check_cohort(config: DataConfig, batch_size: int) -> CohortCheck:
    """Read everything once and return all that is wrong with it.

    Args:
        config: the cohort.
        batch_size: images in a batch of pretraining, for the number of positives in it.

    Raises:
        UserError: if there is no table to speak of; see :func:`mmcuda.data.read_table`.
    """
    table, problems = read_table(config)
    split, faults = _split(table, config)
    facts = examine_images(table, config.image_size)
    summary = summarise_table(table, split, batch_size)
    problems = [*problems, *faults, *label_problems(table, split, batch_size), *target_problems(table, split)]
    problems += _image_problems(table, split, facts)
    summary["missing_cells"] = _missing_cells(table)
    summary["image_files"] = _describe_images(table, facts)
    return CohortCheck(summary, sorted(problems, key=lambda problem: problem.severity))


def load_checked(config: DataConfig) -> Cohort:
    """Load a cohort without errors. The table is checked before the first image is decoded.

    Raises:
        UserError: naming the first errors of the table, or else of the images.
    """
    table, problems = read_table(config)
    split, faults = _split(table, config)
    raise_errors([*problems, *faults])
    images, facts = ImageCache(table, config.image_size, config.cache_dir).load()
    raise_errors(_image_problems(table, split, facts))
    return Cohort(table, images, split)


def _split(table: CohortTable, config: DataConfig) -> tuple[Split, list[Problem]]:
    """Return the sides of the split, even where patients leak; without two patients, everything trains."""
    if table.split is not None:
        return given_split(table.split), []  # its leaks are among the table's problems
    try:
        return split_by_patient(table.patients, config.test_fraction, SPLIT_SEED), []
    except UserError as error:
        nothing = np.empty(0, np.int64)
        return Split(np.arange(len(table)), nothing), [Problem("error", "", str(error))]


def _image_problems(table: CohortTable, split: Split, facts: ImageFacts) -> list[Problem]:
    return facts.problems + copy_problems(table, split, facts.digests) + blank_problems(table, facts.digests)


def _missing_cells(table: CohortTable) -> dict[str, float]:
    """Return the share of rows without a value, by column."""
    columns: list[tuple[str, np.ndarray]] = [(name, label.values) for name, label in table.clinical.items()]
    columns += [*table.targets.items(), *table.tabular.items(), *table.text.items(), *table.subgroups.items()]
    return {
        name: float((values == "" if values.dtype.kind == "U" else np.isnan(values)).mean()) for name, values in columns
    }


def _describe_images(table: CohortTable, facts: ImageFacts) -> dict[str, Any]:
    known = facts.digests != b""
    sizes, counts = np.unique(np.stack([facts.widths[known], facts.heights[known]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {
        "different": len(np.unique(table.images.origins)),
        "missing": sum(problem.message.startswith("missing") for problem in facts.problems),
        "unreadable": sum(not problem.message.startswith("missing") for problem in facts.problems),
        "channels": list(table.images.channel_names),
        "sizes": [
            {"width": int(sizes[0, at]), "height": int(sizes[1, at]), "images": int(counts[at])}
            for at in order[:SIZES_SHOWN]
        ],
        "other_sizes": int(counts[order[SIZES_SHOWN:]].sum()),
    }

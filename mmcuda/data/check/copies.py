"""Images that are the same: on two sides of the split, of two patients, or just twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mmcuda.data.decode import BLANK
from mmcuda.data.problems import Problem
from mmcuda.data.split import Split
from mmcuda.data.table import CohortTable

Rows = npt.NDArray[np.int64]


def copy_problems(table: CohortTable, split: Split, digests: npt.NDArray[np.bytes_]) -> list[Problem]:
    """Return what is wrong with images that are the same though they come from different places.

    An error if they are on two sides of the split, a warning if they are of two patients on one side, and one warning
    for all copies within patients.

    Args:
        table: the cohort.
        split: its sides.
        digests: [N] equal for equal images, empty for those that could not be read.
    """
    sides = split.side_of_each(len(table))
    origins = table.images.origins
    problems: list[Problem] = []
    harmless: list[tuple[int, int]] = []
    for rows in _equal_rows(digests):
        first = int(rows[0])
        if (other := _first_different(sides, rows)) is not None:
            where = [f"{sides[row]} (row {table.row_numbers[row]})" for row in (first, other)]
            message = f"the same image as {table.image_names[other]}, but one is in {where[0]}, the other in {where[1]}"
            problems.append(Problem("error", str(table.image_names[first]), message))
        elif (other := _first_different(table.patients, rows)) is not None:
            whose = [f"patient {table.patients[row]} (row {table.row_numbers[row]})" for row in (first, other)]
            message = f"of {whose[0]}, the same image as {table.image_names[other]}, of {whose[1]}"
            problems.append(Problem("warning", str(table.image_names[first]), message))
        elif (other := _first_different(origins, rows)) is not None:
            harmless.append((first, other))
    if harmless:
        names = " and ".join(str(table.image_names[row]) for row in harmless[0])
        message = f"images of one patient that are the same: {names}"
        message += f", and {len(harmless) - 1:,} more" if len(harmless) > 1 else ""
        problems.append(Problem("warning", "", message))
    return problems


def blank_problems(table: CohortTable, digests: npt.NDArray[np.bytes_]) -> list[Problem]:
    """Return one warning for all images that show nothing."""
    rows = np.flatnonzero(digests == BLANK.encode())
    if len(rows) == 0:
        return []
    more = f", and so are {len(rows) - 1:,} more" if len(rows) > 1 else ""
    message = f"blank, every pixel is the same (row {table.row_numbers[rows[0]]}){more}"
    return [Problem("warning", str(table.image_names[rows[0]]), message)]


def _equal_rows(digests: npt.NDArray[np.bytes_]) -> Iterator[Rows]:
    """Yield the rows of each image that several rows show, in the order of the first of them."""
    known = np.flatnonzero((digests != b"") & (digests != BLANK.encode()))
    order = known[np.argsort(digests[known], kind="stable")]
    starts = np.flatnonzero(np.append(True, digests[order][1:] != digests[order][:-1])) if len(order) else order
    groups = [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]
    yield from sorted(groups, key=lambda rows: int(rows[0]))


def _first_different(values: npt.NDArray[np.str_], rows: Rows) -> int | None:
    """Return the first of ``rows`` that has another value than the very first."""
    different = rows[values[rows] != values[rows[0]]]
    return int(different[0]) if len(different) else None

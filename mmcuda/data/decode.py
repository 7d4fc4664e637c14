"""Reading the images of a table: every distinct one once, several at a time, with what is wrong with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mmcuda.data.problems import ImageError, Problem
from mmcuda.data.table import CohortTable, ImageSource, Picture

BLANK = "blank"  # digest of an image that shows nothing: such images are not copies of each other
BLOCK = 256  # images read before the next ones are asked for
TASK = 8  # images that a thread reads before it reports them: tiny ones take less time than a report
ROWS_NAMED = 3  # in one problem
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageFacts:
    """What is known of the images after they were read; 0 and "" for those that could not be."""

    widths: npt.NDArray[np.int32]  # [N] of the inputs, in pixels
    heights: npt.NDArray[np.int32]  # [N]
    digests: npt.NDArray[np.bytes_]  # [N] equal = the same image, or BLANK
    problems: list[Problem] = field(default_factory=list)  # one for each input that cannot be read


def reader_threads() -> int:
    """Return how many images are read at once: more than there are cores, since some wait for the disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(2 * cores, 32)


def group_rows(origins: npt.NDArray[np.str_]) -> list[Rows]:
    """Return the rows of each distinct origin, in the order of the first of them."""
    _, first, number = np.unique(origins, return_index=True, return_inverse=True)
    by_origin = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    return [by_origin[position] for position in np.argsort(first)]


def read_pictures(
    images: ImageSource, groups: list[Rows], size: int, title: str
) -> Iterator[list[tuple[Rows, Picture | ImageError]]]:
    """Read one image for each group of rows, in threads; yield them block by block, in order.

    Args:
        images: where they come from.
        groups: rows that show the same image.
        size: side to fit the images to, in pixels.
        title: of the progress bar, which shows where somebody watches a terminal.
    """

    def read(rows: Rows) -> tuple[Rows, Picture | ImageError]:
        try:
            return rows, images.read(int(rows[0]), size)
        except ImageError as error:
            return rows, error

    def read_several(start: int) -> list[tuple[Rows, Picture | ImageError]]:
        return [read(rows) for rows in groups[start : start + TASK]]

    with (
        ThreadPoolExecutor(reader_threads()) as pool,
        tqdm(total=len(groups), desc=title, unit=" images", disable=not sys.stderr.isatty(), leave=False) as progress,
    ):
        for start in range(0, len(groups), BLOCK):
            block = list(chain(*pool.map(read_several, range(start, min(start + BLOCK, len(groups)), TASK))))
            yield block
            progress.update(len(block))


def examine_images(table: CohortTable, size: int) -> ImageFacts:
    """Read every image of a table once and keep what is known of them, not their pixels."""
    facts = ImageFacts(
        np.zeros(len(table), np.int32), np.zeros(len(table), np.int32), np.zeros(len(table), np.dtype("S32"))
    )
    for block in read_pictures(table.images, group_rows(table.images.origins), size, "reading"):
        for rows, picture in block:
            if isinstance(picture, ImageError):
                facts.problems.append(image_problem(picture, table.row_numbers[rows]))
            else:
                facts.widths[rows], facts.heights[rows] = picture.width, picture.height
                facts.digests[rows] = digest_of(picture).encode()
    return facts


def digest_of(picture: Picture) -> str:
    """Return the digest of an image, or ``BLANK`` if every pixel of it, its padding aside, is the same."""
    size = picture.pixels.shape[1]
    width, height = (max(1, round(size * side / max(picture.width, picture.height))) for side in picture[1:3])
    left, top = (size - width) // 2, (size - height) // 2
    content = picture.pixels[:, top : top + height, left : left + width]
    return BLANK if (content == content[:, :1, :1]).all() else picture.digest


def image_problem(error: ImageError, row_numbers: Rows) -> Problem:
    """Return an image's error with the rows of the user's table that name it."""
    named = ", ".join(str(number) for number in row_numbers[:ROWS_NAMED])
    more = len(row_numbers) - ROWS_NAMED
    rows = f"row{'s' if len(row_numbers) > 1 else ''} {named}{f' and {more} more' if more > 0 else ''}"
    return Problem("error", error.where, f"{error.message} ({rows})")

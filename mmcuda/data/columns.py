"""From the cells of a column to numbers, targets or names, with every cell that is none of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from mmcuda.data.problems import Problem
from mmcuda.data.sheet import MISSING_WORDS, Sheet

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.str_]
T = TypeVar("T")

SIDE_WORDS = {"train": "train", "training": "train", "validation": "validation", "validate": "validation"}
SIDE_WORDS |= {"valid": "validation", "val": "validation", "test": "test", "testing": "test"}
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}")
WITH_COMMA = r"[-+]?\d+(,\d+)+(\.\d*)?"
FRACTION = r"\d+\s*/\s*\d+"
NEARLY_NUMBER = re.compile(f"{WITH_COMMA}|{FRACTION}")
WITH_UNIT = re.compile(r"[-+]?\d*\.?\d+(%|\s+\S.*|\s*[^\d\s]{2,})")  # "3b" is a category
QUARTILES_ABOVE = 10  # different numbers, from which a subgroup column is cut at its quartiles
MOST_CATEGORIES = 50  # of a tabular column


def read_texts(sheet: Sheet, column: str) -> tuple[pd.Series, list[Problem]]:
    """Return the cells as strings, [N], "" where one is empty or a word such as NA, and a warning for such words."""
    texts = sheet.texts(column)
    said = texts.str.casefold().isin(MISSING_WORDS)
    if not said.any():
        return texts, []
    first = int(np.flatnonzero(said)[0])
    cells = f"such words are in {int(said.sum()):,} of {len(texts):,} cells"
    message = f'"{texts.iloc[first]}" counts as missing ({cells})'
    return texts.mask(said, ""), [Problem("warning", sheet.where(first, column), message)]


def read_numbers(sheet: Sheet, column: str) -> tuple[Floats, list[Problem]]:
    """Return the numbers of a column, [N], NaN where a cell is missing or no number, and the problems."""
    import pandas as pd

    texts, problems = read_texts(sheet, column)
    if pd.api.types.is_numeric_dtype(sheet.frame[column].dtype):
        numbers = sheet.frame[column].to_numpy(np.float64, na_value=np.nan)
    else:
        numbers = np.asarray(pd.to_numeric(texts, errors="coerce"), dtype=np.float64)
    bad = (texts != "").to_numpy() & ~np.isfinite(numbers)
    problems += cell_errors(sheet, column, bad, _why_no_number)
    return np.where(bad, np.nan, numbers), problems


def read_sides(sheet: Sheet, column: str) -> tuple[Words, list[Problem]]:
    """Return the side of the split of every row, [N], train where a cell is bad, and the problems."""
    texts = sheet.texts(column).str.casefold()
    sides = texts.map(SIDE_WORDS)
    wanted = "expected train, validation or test"
    problems = cell_errors(sheet, column, sides.isna(), lambda cell: f'{wanted}, got "{cell}"')
    return np.asarray(sides.fillna("train"), dtype=str), problems


def read_names(sheet: Sheet, column: str) -> tuple[Words, list[Problem]]:
    """Return the cells of a column in which none may be empty, such as the patients, [N], and the problems."""
    texts = np.asarray(sheet.texts(column), dtype=str)
    return texts, cell_errors(sheet, column, texts == "", lambda cell: "is empty")


def read_words(sheet: Sheet, column: str) -> Words:
    """Return the cells of a column as text, [N], "" where they are missing."""
    return np.asarray(read_texts(sheet, column)[0], dtype=str)


def read_subgroups(sheet: Sheet, column: str) -> Words:
    """Return the subgroup of every row, [N]: the cell itself, or the quartile where a column has many numbers."""
    import pandas as pd

    words = read_words(sheet, column)
    numbers = pd.to_numeric(pd.Series(words), errors="coerce")
    known = words != ""
    if numbers[known].isna().any() or numbers[known].nunique() <= QUARTILES_ABOVE:
        return words
    quartiles = pd.qcut(numbers, 4, duplicates="drop")
    edges = [f"{interval.left:.4g} to {interval.right:.4g}" for interval in quartiles.cat.categories]
    return np.where(known, np.array([*edges, ""])[quartiles.cat.codes], "")


def read_tabular(sheet: Sheet, column: str) -> tuple[dict[str, Floats], list[Problem]]:
    """Return a column of numbers as it is, or a column of words as one column of 0 and 1 for each word."""
    texts, warnings = read_texts(sheet, column)
    if is_numeric(texts):
        numbers, problems = read_numbers(sheet, column)
        return {column: numbers}, problems
    words = np.asarray(texts, dtype=str)
    categories = [str(word) for word in np.unique(words[words != ""])]
    if len(categories) > MOST_CATEGORIES:
        message = f"holds {len(categories)} different words, at most {MOST_CATEGORIES} can be categories"
        return {}, [Problem("error", sheet.where_all(column), message)]
    known = words != ""
    return {f"{column}={word}": np.where(known, words == word, np.nan) for word in categories}, warnings


def is_numeric(texts: pd.Series) -> bool:
    """Return whether most cells with content are numbers, or were meant to be."""
    import pandas as pd

    known = texts[texts != ""]
    numbers = pd.to_numeric(known, errors="coerce").notna()
    meant = known.str.match(DATE) | known.str.fullmatch(NEARLY_NUMBER)
    if numbers.any():  # else "2 or more" and "10 pack years" may well be categories
        meant |= known.str.fullmatch(WITH_UNIT)
    return bool((numbers | meant).mean() >= 0.5)


def cell_errors(sheet: Sheet, column: str, bad: ArrayLike, explain: Callable[[str], str]) -> list[Problem]:
    """Return an error for every cell where ``bad`` [N] is true; ``explain`` turns the cell into the message."""
    texts = sheet.texts(column)
    rows = np.flatnonzero(bad).tolist()
    errors = (Problem("error", sheet.where(row, column), explain(texts.iloc[row])) for row in rows)
    return list(dict.fromkeys(errors))  # a cell of a joined table may belong to several rows


def _why_no_number(cell: str) -> str:
    if re.fullmatch(r"[-+]?(inf|infinity)", cell, re.IGNORECASE):
        return f'"{cell}" is not finite'
    if DATE.match(cell):
        return f'"{cell}" is a date, not a number: give days or years'
    if re.fullmatch(WITH_COMMA, cell):
        return f'"{cell}" is not a number: write a point for the decimals and nothing between thousands'
    if re.fullmatch(FRACTION, cell):
        return f'"{cell}" is a fraction, not a number: convert it, such as acuity to letters or logMAR'
    if WITH_UNIT.fullmatch(cell):
        return f'"{cell}" is not a number: leave out the unit'
    return f'"{cell}" is not a number'


@dataclass(frozen=True)
class Column:
    """One column of a sheet, and the problems found while it is read."""

    sheet: Sheet
    name: str
    found: list[Problem]

    def texts(self) -> pd.Series:
        """Return the cells, [N], "" where they are missing."""
        return self._keep(read_texts(self.sheet, self.name))

    def numbers(self) -> Floats:
        """Return the cells as numbers, [N], NaN where they are missing; every other cell is an error."""
        return self._keep(read_numbers(self.sheet, self.name))

    def reject(self, bad: ArrayLike, explain: Callable[[str], str]) -> None:
        """Make an error of every cell where ``bad`` [N] is true; ``explain`` turns the cell into the message."""
        self._add(cell_errors(self.sheet, self.name, bad, explain))

    def fail(self, message: str) -> None:
        """Make an error of the column as a whole."""
        self._add([Problem("error", self.sheet.where_all(self.name), message)])

    def _keep(self, result: tuple[T, list[Problem]]) -> T:
        self._add(result[1])
        return result[0]

    def _add(self, found: list[Problem]) -> None:
        self.found.extend(problem for problem in found if problem not in self.found)

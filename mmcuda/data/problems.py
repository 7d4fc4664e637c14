"""What is wrong with a cohort: where, and what was expected there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mmcuda.errors import UserError

SHOWN = 5  # errors named in one message; `mmcuda data check` lists them all


@dataclass(frozen=True)
class Problem:
    """One fault of a table, a cell or an image."""

    severity: Literal["error", "warning"]  # an error stops training before it starts
    where: str  # "cohort.csv row 118 column cst", "images/0417.tif", or "" for the cohort as a whole
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class ImageError(UserError):
    """One image is missing or cannot be decoded."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where, self.message = where, message  # "images/0417.tif", "truncated"


def raise_errors(problems: Iterable[Problem]) -> None:
    """Raise one UserError that names the first errors and says how many more there are; nothing if there is none."""
    errors = [str(problem) for problem in problems if problem.severity == "error"]
    if not errors:
        return
    more = len(errors) - SHOWN
    rest = f"; and {more} more: `mmcuda data check` lists all {len(errors)}" if more > 0 else ""
    raise UserError("; ".join(errors[:SHOWN]) + rest)

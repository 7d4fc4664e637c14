"""What targets of several classes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmcuda.targets.base import Cells, Floats, Target, Values

MOST_CLASSES = 50


class Classes(Target):
    """A target of several classes, whose predictions are their probabilities, [n, C]."""

    def columns(self, name: str) -> list[str]:
        """Return the names of the probabilities: ``grade=mild``."""
        return [f"{name}={label}" for label in self.classes]

    def written(self, values: Floats | Values) -> npt.NDArray[Any]:
        """Return the names of classes [n], "" where there is none."""
        return np.asarray(np.array([*self.classes, ""])[np.nan_to_num(values, nan=-1).astype(int)])

    def decide(self, predictions: Floats) -> Floats:
        """Return the most probable class [n], NaN where the predictions [n, C] are."""
        decided = np.nan_to_num(predictions).argmax(axis=1).astype(np.float64)
        return np.where(np.isnan(predictions).any(axis=1), np.nan, decided)


def read_classes(cells: Cells, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Values]:
    """Return the classes of a column, in order, and the class [N] of every cell, NaN where it is missing.

    Args:
        cells: of the column.
        classes: in their order; none: those that there are, in the order of their numbers or of the alphabet.
    """
    texts = cells.texts()
    different = sorted(set(texts) - {""})
    if classes:
        wanted = f"expected {', '.join(classes)} or empty"
        cells.reject(((texts != "") & ~texts.isin(classes)).to_numpy(), lambda cell: f'{wanted}, got "{cell}"')
    else:
        numbers = pd.to_numeric(pd.Series(different, dtype=object), errors="coerce")
        order = (
            np.argsort(numbers.to_numpy(np.float64), kind="stable") if numbers.notna().all() else range(len(different))
        )
        classes = tuple(different[place] for place in order)
    check_number(cells, classes)
    return classes, np.asarray(texts.map({name: label for label, name in enumerate(classes)}), dtype=np.float32)


def check_number(cells: Cells, classes: Sequence[str]) -> None:
    """Make an error of a column with too many or too few classes."""
    if len(classes) > MOST_CLASSES:
        cells.fail(f"holds {len(classes)} different values, at most {MOST_CLASSES} can be classes")
    elif len(classes) < 2:
        cells.fail("holds " + (f"{classes[0]} and nothing else" if classes else "no label"))

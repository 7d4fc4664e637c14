"""The one table that every source yields: a row an image, with its patient, clinical labels and targets."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mmcuda.relations import Relation
from mmcuda.targets import Binary, Target

SIDES = ("train", "validation", "test")


class Picture(NamedTuple):
    """One image as it is read, once."""

    pixels: npt.NDArray[np.uint8]  # [C, size, size]
    width: int  # of the input, before it was fitted to the square
    height: int
    digest: str  # 32 hexadecimal digits, of the input's bytes: equal = the same image


class ImageSource(Protocol):
    """Where the pixels of a table come from."""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the C channels."""

    @property
    def version(self) -> str:
        """Name of the decoder and its options: with another version, ``read`` may return other pixels."""

    @property
    def origins(self) -> npt.NDArray[np.str_]:
        """[N] what each row is read from, such as a file's path; rows of one origin show one image."""

    def __len__(self) -> int:
        """Return N, the number of images."""

    def stamps(self) -> npt.NDArray[np.str_]:
        """Return the state [N] of every origin, such as a file's size and time: it changes whenever the pixels may."""

    def read(self, row: int, size: int) -> Picture:
        """Read the image of one row; called from several threads at once.

        Raises:
            ImageError: if it is missing or cannot be decoded.
        """

    def take(self, rows: npt.NDArray[np.int64]) -> ImageSource:
        """Return the images of ``rows`` alone, in that order."""


@dataclass(frozen=True)
class ClinicalLabel:
    """One clinical value of every image and the relation that makes two images positives under it."""

    values: npt.NDArray[np.float64]  # [N], NaN = missing
    relation: Relation
    description: str  # one line, with the unit
    weight: float = 1.0  # in the sum of the contrastive losses


@dataclass(frozen=True)
class CohortTable:
    """A cohort without its pixels. Every array has one entry an image.

    Raises:
        ValueError: if a field has the wrong shape, type or values. The message names the field.
    """

    name: str  # as on the command line, such as "lidc"
    title: str  # as in a report, such as "LIDC nodule readings"
    statement: str  # the honest limits of the data, printed in every report
    images: ImageSource  # reads the pixels of a row
    image_names: npt.NDArray[np.str_]  # [N] as in the user's table
    row_numbers: npt.NDArray[np.int64]  # [N] row in the user's table, whose header is row 1
    patients: npt.NDArray[np.str_]  # [N], every split is by patient
    bags: npt.NDArray[np.int64]  # [N], images of one lesion, eye or study share a bag
    clinical: dict[str, ClinicalLabel]
    targets: dict[str, npt.NDArray[np.float32]]  # [N] each: a class (0, 1, ...) or a number; NaN = no label
    kinds: dict[str, Target] = field(default_factory=dict)  # of the targets that are not binary
    tabular: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)  # [N] each, NaN = missing
    text: dict[str, npt.NDArray[np.str_]] = field(default_factory=dict)  # [N] each, "" = missing
    subgroups: dict[str, npt.NDArray[np.str_]] = field(default_factory=dict)  # [N] each, "" = missing
    split: npt.NDArray[np.str_] | None = None  # [N] one of SIDES, where the table gives the split
    notes: tuple[str, ...] = ()  # what the user should know of how the table was read, such as inferred kinds

    def __post_init__(self) -> None:
        images = len(self.images)
        _check_column("image_names", self.image_names, images, kind="U", wanted="strings")
        _check_column("row_numbers", self.row_numbers, images, kind="i", wanted="integers")
        _check_column("patients", self.patients, images, kind="U", wanted="strings")
        _check_column("bags", self.bags, images, kind="i", wanted="integers")
        numbers = {f"clinical[{name!r}]": label.values for name, label in self.clinical.items()}
        numbers |= {f"tabular[{name!r}]": values for name, values in self.tabular.items()}
        for name, values in numbers.items():
            _check_column(name, values, images, kind="f", wanted="floats")
            if np.isinf(values).any():
                raise ValueError(f"{name} must be finite or NaN, got an infinite value")
        for name, targets in self.targets.items():
            _check_column(f"targets[{name!r}]", targets, images, kind="f", wanted="floats")
            if problem := self.kinds.get(name, Binary()).problem(targets):
                raise ValueError(f"targets[{name!r}] {problem}")
        for group in ("text", "subgroups"):
            for name, words in getattr(self, group).items():
                _check_column(f"{group}[{name!r}]", words, images, kind="U", wanted="strings")
        if self.split is not None:
            _check_column("split", self.split, images, kind="U", wanted="strings")
            strange_sides = set(np.unique(self.split).tolist()) - set(SIDES)
            if strange_sides:
                raise ValueError(f"split must be one of {', '.join(SIDES)}, got {min(strange_sides)!r}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: npt.NDArray[np.int64]) -> CohortTable:
        """Return the table of ``rows`` alone, in that order."""

        def part(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value[rows]
            if isinstance(value, ClinicalLabel):
                return replace(value, values=value.values[rows])
            return {name: part(column) for name, column in value.items()} if isinstance(value, dict) else value

        changed = {item.name: part(getattr(self, item.name)) for item in fields(self)}
        return replace(self, **changed | {"images": self.images.take(rows)})


def _check_column(name: str, column: np.ndarray, images: int, kind: str, wanted: str) -> None:
    if column.shape != (images,) or column.dtype.kind != kind:
        raise ValueError(f"{name} must be {wanted} [{images}], got {column.dtype} {list(column.shape)}")

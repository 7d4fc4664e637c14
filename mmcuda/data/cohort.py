"""A cohort: images of patients with cheap clinical labels and scarce expert targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmcuda.labels import Relation


@dataclass(frozen=True)
class ClinicalLabel:
    """One clinical value of every image and the relation that makes two images positives under it."""

    values: npt.NDArray[np.float64]  # [N], NaN = missing
    relation: Relation
    description: str  # one line, with the unit
    weight: float = 1.0  # in the sum of the contrastive losses


@dataclass(frozen=True)
class Cohort:
    """Images with their patients, bags, clinical labels and targets. Every array has one entry an image.

    Raises:
        ValueError: if a field has the wrong shape, type or values. The message names the field.
    """

    name: str  # as on the command line, such as "lidc"
    title: str  # as in a report, such as "LIDC nodule readings"
    images: npt.NDArray[np.uint8]  # [N, C, H, W], may be memory-mapped
    channel_names: tuple[str, ...]  # C names
    patients: npt.NDArray[np.str_]  # [N], every split is by patient
    bags: npt.NDArray[np.int64]  # [N], images of one lesion or eye share a bag
    clinical: dict[str, ClinicalLabel]
    targets: dict[str, npt.NDArray[np.float32]]  # [N] each: 1, 0, or NaN = no label
    statement: str  # the honest limits of the data, printed in every report

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 [N, C, H, W], got {_describe(self.images)}")
        images, channels = self.images.shape[:2]
        if len(self.channel_names) != channels:
            raise ValueError(f"channel_names must name {channels} channels, got {self.channel_names}")
        _check_column("patients", self.patients, images, kind="U", wanted="strings")
        _check_column("bags", self.bags, images, kind="i", wanted="integers")
        for name, label in self.clinical.items():
            _check_column(f"clinical[{name!r}]", label.values, images, kind="f", wanted="floats")
            if np.isinf(label.values).any():
                raise ValueError(f"clinical[{name!r}] must be finite or NaN, got an infinite value")
        for name, values in self.targets.items():
            _check_column(f"targets[{name!r}]", values, images, kind="f", wanted="floats")
            strange = values[~(np.isnan(values) | (values == 0) | (values == 1))]
            if len(strange):
                raise ValueError(f"targets[{name!r}] must be 0, 1 or NaN, got {strange[0]:g}")


def _check_column(field: str, column: np.ndarray, images: int, kind: str, wanted: str) -> None:
    if column.shape != (images,) or column.dtype.kind != kind:
        raise ValueError(f"{field} must be {wanted} [{images}], got {_describe(column)}")


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"

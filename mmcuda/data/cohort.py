"""A cohort: a table, the pixels of its images, and its split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcuda.data.split import Indices, Split
from mmcuda.data.table import ClinicalLabel, CohortTable
from mmcuda.targets import Binary, Target


@dataclass(frozen=True)
class Cohort:
    """A table, its images, all of one size, and which of them train, choose thresholds and test.

    Raises:
        ValueError: if ``images`` does not fit the table.

    Example:
        >>> from mmcuda.data import DataConfig, load_cohort
        >>> cohort = load_cohort(DataConfig(source="lidc", image_size=32))
        >>> cohort.images.shape
        (6859, 3, 32, 32)
    """

    table: CohortTable
    images: npt.NDArray[np.uint8]  # [N, C, H, W], may be memory-mapped
    split: Split

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 [N, C, H, W], got {self.images.dtype} {list(self.images.shape)}")
        if self.images.shape[:2] != (len(self.table), len(self.channel_names)):
            raise ValueError(
                f"images must be [{len(self.table)}, {len(self.channel_names)}, H, W], got {list(self.images.shape)}"
            )

    @property
    def train(self) -> Indices:
        """Images that train."""
        return self.split.train

    @property
    def validation(self) -> Indices:
        """Images that choose thresholds; none unless the table gives them."""
        return self.split.validation

    @property
    def test(self) -> Indices:
        """Images that test."""
        return self.split.test

    @cached_property
    def target_matrix(self) -> npt.NDArray[np.float32]:
        """The T targets as columns, [N, T], NaN = no label."""
        columns = list(self.targets.values())
        return np.stack(columns, axis=1) if columns else np.empty((len(self.table), 0), np.float32)

    def inputs(self, rows: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        """Return what a model gets of the images at ``rows`` [...]: ``image``, uint8 [..., C, H, W]."""
        return {"image": torch.from_numpy(self.images[rows])}

    def take(self, rows: npt.NDArray[np.int64]) -> Cohort:
        """Return the cohort of ``rows`` alone, in that order, its images in memory."""
        return Cohort(self.table.take(rows), self.images[rows], self.split.take(rows))

    def with_labels(
        self,
        clinical: dict[str, ClinicalLabel] | None = None,
        targets: dict[str, npt.NDArray[np.float32]] | None = None,
    ) -> Cohort:
        """Return the cohort with other clinical labels or targets; None keeps those that there are."""
        table = replace(
            self.table,
            clinical=self.clinical if clinical is None else clinical,
            targets=self.targets if targets is None else targets,
        )
        return replace(self, table=table)

    @property
    def name(self) -> str:
        """The source, as on the command line."""
        return self.table.name

    @property
    def title(self) -> str:
        """The cohort's name in a report."""
        return self.table.title

    @property
    def statement(self) -> str:
        """The honest limits of the data."""
        return self.table.statement

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the C channels."""
        return self.table.images.channel_names

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """[N] the patient of every image."""
        return self.table.patients

    @property
    def bags(self) -> npt.NDArray[np.int64]:
        """[N] the lesion, eye or study of every image."""
        return self.table.bags

    @property
    def clinical(self) -> dict[str, ClinicalLabel]:
        """Clinical labels by name."""
        return self.table.clinical

    @property
    def targets(self) -> dict[str, npt.NDArray[np.float32]]:
        """Values of the targets by name, [N] each: a class (0, 1, ...) or a number; NaN = no label."""
        return self.table.targets

    @cached_property
    def kinds(self) -> dict[str, Target]:
        """The targets by name, each of its kind."""
        return {name: self.table.kinds.get(name, Binary()) for name in self.targets}

    @property
    def subgroups(self) -> dict[str, npt.NDArray[np.str_]]:
        """Subgroups by name, [N] each, "" = missing."""
        return self.table.subgroups

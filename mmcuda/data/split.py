"""Splits and draws by patient. No patient is ever on two sides; a leak is an error."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmcuda.data.table import SIDES, CohortTable
from mmcuda.errors import UserError

Indices = npt.NDArray[np.int64]
Patients = npt.NDArray[np.str_]
SPLIT_SEED = 2026  # one split for all runs, so that their rows can be compared; training seeds vary


@dataclass(frozen=True)
class Split:
    """Which images train, which choose thresholds and which test, as ascending indices."""

    train: Indices
    test: Indices
    validation: Indices = field(default_factory=lambda: np.empty(0, np.int64))  # empty unless the table gives it

    @property
    def sides(self) -> dict[str, Indices]:
        """The sides by name, in the order of ``SIDES``."""
        return {side: getattr(self, side) for side in SIDES}

    def take(self, rows: Indices) -> Split:
        """Return the split of ``rows`` alone, each by its position among them."""
        return Split(**{side: np.flatnonzero(np.isin(rows, wanted)) for side, wanted in self.sides.items()})

    def side_of_each(self, images: int) -> npt.NDArray[np.str_]:
        """Return the name of the side of each image, [images], "" where it is on none."""
        names = np.full(images, "", dtype=f"U{max(map(len, SIDES))}")
        for side, rows in self.sides.items():
            names[rows] = side
        return names


def split_table(table: CohortTable, test_fraction: float) -> Split:
    """Return the split that the table gives, or else draw one by patient.

    Raises:
        ValueError: if a patient is on two sides.
        UserError: if there are fewer than two patients to draw from.
    """
    if table.split is None:
        return split_by_patient(table.patients, test_fraction, SPLIT_SEED)
    split = given_split(table.split)
    check_no_leak(table.patients, split)
    return split


def given_split(sides: npt.NDArray[np.str_]) -> Split:
    """Return the split of a column [N] of ``SIDES``, whoever is on two of them."""
    return Split(**{side: np.flatnonzero(sides == side) for side in SIDES})


def split_by_patient(patients: Patients, test_fraction: float, seed: int) -> Split:
    """Split the images so that about ``test_fraction`` of the patients are in the test set.

    Args:
        patients: [N] the patient of every image.
        test_fraction: share of the patients, between 0 and 1, both excluded.
        seed: the same seed gives the same split.

    Raises:
        ValueError: if ``test_fraction`` is out of range.
        UserError: if there are fewer than two patients.
    """
    from sklearn.model_selection import GroupShuffleSplit  # a second to import: only where a split is drawn

    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}")
    names = np.unique(patients)
    if len(names) < 2:
        raise UserError(f"a split needs at least 2 patients, got {len(names)}")
    test_count = min(max(round(test_fraction * len(names)), 1), len(names) - 1)
    splitter = GroupShuffleSplit(n_splits=1, test_size=test_count, random_state=seed)
    train, test = next(splitter.split(patients, groups=patients))
    split = Split(np.sort(train).astype(np.int64), np.sort(test).astype(np.int64))
    check_no_leak(patients, split)
    return split


def patients_on_two_sides(patients: Patients, split: Split) -> dict[str, tuple[str, str]]:
    """Return the first two sides of every patient that is on more than one."""
    sides = [(side, np.unique(patients[rows])) for side, rows in split.sides.items()]
    shared: dict[str, tuple[str, str]] = {}
    for position, (side, names) in enumerate(sides):
        for other, others in sides[position + 1 :]:
            for patient in np.intersect1d(names, others):
                shared.setdefault(str(patient), (side, other))
    return shared


def check_no_leak(patients: Patients, split: Split) -> None:
    """Raise if a patient has images on two sides of the split.

    Args:
        patients: [N] the patient of every image.
        split: indices into ``patients``.

    Raises:
        ValueError: naming up to five of the patients.
    """
    if shared := list(patients_on_two_sides(patients, split)):
        named = ", ".join(shared[:5]) + (", ..." if len(shared) > 5 else "")
        raise ValueError(f"split must keep every patient on one side, got {len(shared)} on two: {named}")


def draw_labelled(patients: Patients, train: Indices, fraction: float, seed: int) -> Indices:
    """Draw the images whose labels a probe may see: all images of ``fraction`` of the training patients.

    With one seed, a smaller fraction's images are among a larger fraction's.

    Args:
        patients: [N] the patient of every image.
        train: indices of the training images.
        fraction: share of the training patients, in (0, 1]; at least one patient is drawn.
        seed: the same seed gives the same draw.

    Returns:
        Indices into ``patients``, a subset of ``train`` in its order.

    Raises:
        ValueError: if ``fraction`` is out of range or ``train`` is empty.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    if len(train) == 0:
        raise ValueError("train must hold at least one index, got none")
    names = np.unique(patients[train])
    shuffled = np.random.default_rng(seed).permutation(names)
    drawn = shuffled[: max(round(fraction * len(names)), 1)]
    return train[np.isin(patients[train], drawn)]

"""Splits and draws by patient. No patient is ever on both sides; a leak is an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Patients = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Split:
    """Which images train and which test, as ascending indices."""

    train: Indices
    test: Indices


def split_by_patient(patients: Patients, test_fraction: float, seed: int) -> Split:
    """Split the images so that about ``test_fraction`` of the patients are in the test set.

    Args:
        patients: [N] the patient of every image.
        test_fraction: share of the patients, between 0 and 1, both excluded.
        seed: the same seed gives the same split.

    Raises:
        ValueError: if ``test_fraction`` is out of range or there are fewer than two patients.
    """
    from sklearn.model_selection import GroupShuffleSplit  # a second to import: only where a split is drawn

    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}")
    names = np.unique(patients)
    if len(names) < 2:
        raise ValueError(f"patients must name at least 2 patients to split, got {len(names)}")
    test_count = min(max(round(test_fraction * len(names)), 1), len(names) - 1)
    splitter = GroupShuffleSplit(n_splits=1, test_size=test_count, random_state=seed)
    train, test = next(splitter.split(patients, groups=patients))
    split = Split(np.sort(train).astype(np.int64), np.sort(test).astype(np.int64))
    check_no_leak(patients, split)
    return split


def check_no_leak(patients: Patients, split: Split) -> None:
    """Raise if a patient has images on both sides of the split.

    Args:
        patients: [N] the patient of every image.
        split: indices into ``patients``.

    Raises:
        ValueError: naming up to five of the patients on both sides.
    """
    shared = np.intersect1d(patients[split.train], patients[split.test])
    if len(shared):
        named = ", ".join(str(name) for name in shared[:5]) + (", ..." if len(shared) > 5 else "")
        raise ValueError(f"split must keep every patient on one side, got {len(shared)} on both: {named}")


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

"""Clinical values as columns for a classifier, beside the features of an image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mmcuda.data.split import Indices
from mmcuda.data.table import ClinicalLabel
from mmcuda.evaluate.features import Features
from mmcuda.relations import Equal

CATEGORIES = 10  # an equality label of at most so many values is one column a value: its numbers may be mere codes


def clinical_columns(clinical: Mapping[str, ClinicalLabel], train: Indices) -> Features:
    """Return the clinical values of every image, [N, K].

    A label of few values under equality is one column a value, of 0 and 1. Any other is its number, standardised, with
    a second column that is 1 where it is missing. Missing values are 0 in all columns but that one.

    Args:
        clinical: labels by name, [N] values each.
        train: the images that say which values there are, and their mean and deviation.
    """
    return np.concatenate([_columns(label, train) for label in clinical.values()], axis=1, dtype=np.float32)


def _columns(label: ClinicalLabel, train: Indices) -> npt.NDArray[np.float64]:
    known = np.isfinite(label.values)
    seen = label.values[train][known[train]]
    categories = np.unique(seen)
    if isinstance(label.relation, Equal) and len(categories) <= CATEGORIES:
        return np.asarray(label.values[:, None] == categories, np.float64)
    deviation = seen.std() if len(categories) > 1 else 1.0
    numbers = (label.values - (seen.mean() if len(seen) else 0.0)) / deviation
    return np.stack([np.where(known, numbers, 0.0), ~known], axis=1)

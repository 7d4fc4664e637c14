"""How many positives a clinical label gives the images of a batch, and by which rule it would give more."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mmcuda.data.clinical import propose_tolerance
from mmcuda.data.table import ClinicalLabel
from mmcuda.relations import Equal, Within

ENOUGH = 1.0  # positives per batch, on average
BINS = 8  # that a proposal names


def positives_per_batch(label: ClinicalLabel, rows: npt.NDArray[np.int64], batch_size: int) -> float:
    """Return how many other images of a batch are positives of an image that has the label, on average.

    Args:
        label: values and their relation.
        rows: the training images.
        batch_size: images in a batch, drawn from ``rows`` without replacement.
    """
    values = label.values[rows]
    return _mean_positives(values, label.relation.tolerance, batch_size)


def _mean_positives(values: npt.NDArray[np.float64], tolerance: float, batch_size: int) -> float:
    known = np.sort(values[np.isfinite(values)])
    if len(known) == 0 or len(values) < 2:
        return 0.0
    reach = np.searchsorted(known, known + tolerance, "right") - np.searchsorted(known, known - tolerance, "left")
    return float((reach - 1).mean() / (len(values) - 1) * (min(batch_size, len(values)) - 1))


def propose_rules(label: ClinicalLabel, rows: npt.NDArray[np.int64], batch_size: int) -> dict[str, float]:
    """Return rules of --data.clinical that give the label enough positives: rule -> positives per batch.

    Codes of categories and ids (whole numbers from 0 on without a gap) have no rule but equality.
    """
    everyone = np.unique(label.values[np.isfinite(label.values)])
    values = label.values[rows]
    known = values[np.isfinite(values)]
    if np.array_equal(everyone, np.arange(len(everyone))) or len(np.unique(known)) < 3:
        return {}
    tolerance = propose_tolerance(known)
    low, high = float(known.min()), float(known.max())
    binned = np.where(np.isfinite(values), np.floor(BINS * (values - low) / (high - low)).clip(max=BINS - 1), np.nan)
    rules = {
        f"within: {tolerance:g}": _mean_positives(values, tolerance, batch_size),
        f"bins: {BINS}": _mean_positives(binned, 0.0, batch_size),
    }
    return {rule: positives for rule, positives in rules.items() if positives >= ENOUGH}


def batch_size_for_one(positives: float, batch_size: int) -> int | None:
    """Return the batch size at which an image has one positive on average; None where it never has."""
    return math.ceil(1 + (batch_size - 1) / positives) if positives > 0 else None


def relation_in_words(label: ClinicalLabel) -> str:
    """Return by what the label's positives are chosen: "by equality", "within 25", "by rbf 10"."""
    if isinstance(label.relation, Equal):
        return "by equality"
    return str(label.relation) if isinstance(label.relation, Within) else f"by {label.relation}"

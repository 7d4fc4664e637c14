"""Cohorts of images with clinical labels and targets, splits by patient, and augmentation."""

from __future__ import annotations

from pathlib import Path

from mmcuda.data.augment import Augment
from mmcuda.data.cohort import ClinicalLabel, Cohort
from mmcuda.data.lidc import load_lidc
from mmcuda.data.split import Split, check_no_leak, draw_labelled, split_by_patient
from mmcuda.errors import UserError

SOURCES = {"lidc": load_lidc}

__all__ = [
    "SOURCES",
    "Augment",
    "ClinicalLabel",
    "Cohort",
    "Split",
    "check_no_leak",
    "draw_labelled",
    "load_cohort",
    "load_lidc",
    "split_by_patient",
]


def load_cohort(source: str, image_size: int = 64, cache_dir: Path | None = None) -> Cohort:
    """Load a cohort by the name of its source.

    Args:
        source: one of ``SOURCES``.
        image_size: side of the images in pixels.
        cache_dir: folder of rendered images; by default ``$MMCUDA_CACHE``, or ``~/.cache/mmcuda``.

    Raises:
        UserError: if the source is unknown, or its data are not at hand.
    """
    if source not in SOURCES:
        raise UserError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    return SOURCES[source](image_size, cache_dir)

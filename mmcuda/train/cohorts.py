"""The cohort of a training, or of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmcuda.data.check import load_checked
from mmcuda.data.cohort import Cohort
from mmcuda.data.config import DataConfig
from mmcuda.errors import UserError
from mmcuda.models.description import read_description
from mmcuda.train.checkpoint import load_data


def load_split_cohort(data: DataConfig, needs_targets: bool = True) -> Cohort:
    """Load the cohort that ``data`` describes, with the split that its table gives, or one drawn by patient.

    Raises:
        UserError: as :func:`mmcuda.data.check.load_checked`, or if the cohort has no target though ``needs_targets``.
    """
    cohort = load_checked(data)
    if needs_targets and not cohort.targets:
        raise UserError(f"{cohort.title} has no targets to predict: name their columns with --data.targets")
    return cohort


def load_cohort_for(place: Path, data: DataConfig | None = None, needs_targets: bool = True) -> Cohort:
    """Load the cohort of a checkpoint, or another one with as many channels.

    Raises:
        UserError: as :func:`load_split_cohort`, or if the encoder takes another number of channels.
    """
    cohort = load_split_cohort(data or load_data(place), needs_targets)
    channels = read_description(place).channels
    if len(channels) != len(cohort.channel_names):
        raise UserError(
            f"the encoder takes {len(channels)} channels ({', '.join(channels)}), the images of {cohort.title} have "
            f"{len(cohort.channel_names)} ({', '.join(cohort.channel_names)}): choose with --data.channels"
        )
    return cohort


def describe_rows(cohort: Cohort, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return patients, clinical labels and targets of the images at ``rows``, as named arrays."""
    clinical = {f"clinical.{name}": label.values[rows] for name, label in cohort.clinical.items()}
    targets = {f"target.{name}": values[rows] for name, values in cohort.targets.items()}
    return {"patients": cohort.patients[rows]} | clinical | targets

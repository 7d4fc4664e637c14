"""What a run says about its cohort, its samples and its machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
import timm
import torch

import mmcuda
from mmcuda._extension import why_not_fused
from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Split, check_no_leak
from mmcuda.data.table import ClinicalLabel
from mmcuda.evaluate.metrics import single_class_targets
from mmcuda.evaluate.tables import target_matrix
from mmcuda.info import cpu_name

SAMPLES = 8
SAMPLE_SEED = 0


def summarise_cohort(cohort: Cohort, split: Split, batch_size: int) -> dict[str, Any]:
    """Return the content of cohort.json: sizes, split, clinical labels, targets.

    Raises:
        ValueError: if a patient is on both sides of the split.
    """
    check_no_leak(cohort.patients, split)
    sides = {side: rows for side, rows in split.sides.items() if len(rows)}
    names, targets = list(cohort.targets), target_matrix(cohort)
    single = {name for rows in (split.train, split.test) for name in single_class_targets(targets[rows], names)}
    return {
        "name": cohort.name,
        "title": cohort.title,
        "statement": cohort.statement,
        "notes": list(cohort.table.notes),
        "images": len(cohort.images),
        "patients": len(np.unique(cohort.patients)),
        "bags": len(np.unique(cohort.bags)),
        "split": {
            side: {"images": len(rows), "patients": len(np.unique(cohort.patients[rows]))}
            for side, rows in sides.items()
        },
        "leak_check": "passed: no patient on both sides",
        "clinical": {
            name: {
                "relation": str(label.relation),
                "description": label.description,
                "weight": label.weight,
                "missing": float(np.isnan(label.values).mean()),
                "positives_per_batch": positives_per_batch(label, split.train, batch_size),
            }
            for name, label in cohort.clinical.items()
        },
        "targets": {
            name: {side: _count(values[rows]) for side, rows in sides.items()}
            for name, values in cohort.targets.items()
        },
        "single_class_targets": [name for name in names if name in single],
    }


def _count(values: npt.NDArray[np.float32]) -> dict[str, int]:
    return {
        "positive": int((values == 1).sum()),
        "negative": int((values == 0).sum()),
        "unlabelled": int(np.isnan(values).sum()),
    }


def positives_per_batch(label: ClinicalLabel, rows: npt.NDArray[np.int64], batch_size: int) -> float:
    """Return how many other images of a batch are positives of an image that has the label, on average.

    Args:
        label: values and their relation.
        rows: the training images.
        batch_size: images in a batch, drawn from ``rows`` without replacement.
    """
    values = label.values[rows]
    known = np.sort(values[np.isfinite(values)])
    if len(known) == 0 or len(rows) < 2:
        return 0.0
    tolerance = label.relation.tolerance
    reach = np.searchsorted(known, known + tolerance, "right") - np.searchsorted(known, known - tolerance, "left")
    return float((reach - 1).mean() / (len(rows) - 1) * (min(batch_size, len(rows)) - 1))


def choose_samples(cohort: Cohort, split: Split) -> dict[str, np.ndarray]:
    """Return the content of samples.npz: training images of different patients, titled with their positive targets."""
    _, first = np.unique(cohort.patients[split.train], return_index=True)
    drawn = np.random.default_rng(SAMPLE_SEED).permutation(split.train[first])[:SAMPLES]
    titles = [
        ", ".join(name for name, values in cohort.targets.items() if values[row] == 1) or "no positive target"
        for row in drawn
    ]
    return {
        "images": np.array(cohort.images[drawn]),
        "titles": np.array(titles),
        "channel_names": np.array(cohort.channel_names),
    }


def describe_environment(command: str, device: torch.device, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the content of environment.json: command, versions, hardware, seconds by stage."""
    reason = why_not_fused(device)
    return {
        "command": command,
        "mmcuda": mmcuda.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "kernels": "fused" if reason is None else f"PyTorch reference ({reason})",
        "seconds": dict(seconds),
    }

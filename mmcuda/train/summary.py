"""What a run says about its cohort, its samples and its machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import sklearn
import timm
import torch

import mmcuda
from mmcuda._native.extension import why_not_fused
from mmcuda.data.cohort import Cohort
from mmcuda.info import cpu_name

SAMPLES = 8
SAMPLE_SEED = 0


def choose_samples(cohort: Cohort) -> dict[str, np.ndarray]:
    """Return the content of samples.npz: training images of different patients, titled with their targets."""
    _, first = np.unique(cohort.patients[cohort.train], return_index=True)
    drawn = np.random.default_rng(SAMPLE_SEED).permutation(cohort.train[first])[:SAMPLES]
    titles = [
        ", ".join(
            filter(None, (target.title(name, cohort.targets[name][row]) for name, target in cohort.kinds.items()))
        )
        or "no positive target"
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

"""Contrastive pretraining for medical images with scarce expert labels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mmcuda.losses import (
    ClinicalSupConLoss,
    ClipLoss,
    ContinuousSupConLoss,
    MICLeLoss,
    MultiLabelSupConLoss,
    NTXentLoss,
    PairMarginLoss,
    QueuedSupConLoss,
    SINCERELoss,
    SupConLoss,
)
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Within

if TYPE_CHECKING:
    import torch

    from mmcuda.predict.model import Model

__version__ = "0.1.0"
__all__ = [
    "Attribute",
    "ClinicalSupConLoss",
    "ClipLoss",
    "ContinuousSupConLoss",
    "Equal",
    "MICLeLoss",
    "MultiLabelSupConLoss",
    "NTXentLoss",
    "Overlap",
    "PairMarginLoss",
    "QueuedSupConLoss",
    "Rbf",
    "SINCERELoss",
    "SupConLoss",
    "Within",
    "load",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "functional", "losses", "relations"])


def load(path: str | os.PathLike[str], device: str | torch.device | None = None) -> Model:
    """Load a trained model with its preprocessing.

    Args:
        path: a checkpoint, a run's folder with a single training, or what ``mmcuda export`` wrote as safetensors.
        device: where to run; by default the GPU if there is one.

    Returns:
        The model: ``model.predict(images)`` gives probabilities [N, T], ``model.embed(images)`` features [N, F].

    Raises:
        UserError: if there is no model at ``path``, or it is damaged.
        ModuleNotFoundError: if the packages of ``pip install 'mmcuda[train]'`` are missing.

    Example:
        >>> model = mmcuda.load("runs/tuned")
        >>> model.predict(["a.png", "b.dcm"]).shape == (2, len(model.targets))
        True
    """
    from mmcuda.predict.model import load  # its packages are needed here alone

    return load(path, device)

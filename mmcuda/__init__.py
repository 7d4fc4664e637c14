"""Contrastive pretraining for medical images with scarce expert labels."""

from mmcuda.labels import Equal, Overlap, Rbf, Within
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

__version__ = "0.1.0"
__all__ = [
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
]

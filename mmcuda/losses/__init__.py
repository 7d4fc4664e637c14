"""The losses as modules."""

from mmcuda.losses.crossed import ClipLoss, PairMarginLoss
from mmcuda.losses.queued import QueuedSupConLoss
from mmcuda.losses.supervised import (
    ClinicalSupConLoss,
    ContinuousSupConLoss,
    MultiLabelSupConLoss,
    SINCERELoss,
    SupConLoss,
)
from mmcuda.losses.unlabelled import MICLeLoss, NTXentLoss

__all__ = [
    "ClinicalSupConLoss",
    "ClipLoss",
    "ContinuousSupConLoss",
    "MICLeLoss",
    "MultiLabelSupConLoss",
    "NTXentLoss",
    "PairMarginLoss",
    "QueuedSupConLoss",
    "SINCERELoss",
    "SupConLoss",
]

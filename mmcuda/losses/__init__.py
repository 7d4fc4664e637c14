"""The losses as modules."""

from mmcuda.losses.clinical import ClinicalSupConLoss
from mmcuda.losses.clip import ClipLoss
from mmcuda.losses.continuous import ContinuousSupConLoss
from mmcuda.losses.margin import PairMarginLoss
from mmcuda.losses.micle import MICLeLoss
from mmcuda.losses.moco import QueuedSupConLoss
from mmcuda.losses.multilabel import MultiLabelSupConLoss
from mmcuda.losses.ntxent import NTXentLoss
from mmcuda.losses.sincere import SINCERELoss
from mmcuda.losses.supcon import SupConLoss

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

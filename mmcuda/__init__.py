"""Contrastive pretraining for medical images with scarce expert labels."""

from mmcuda.labels import Equal, Within
from mmcuda.losses import ClinicalSupConLoss, SupConLoss

__version__ = "0.1.0"
__all__ = ["ClinicalSupConLoss", "Equal", "SupConLoss", "Within"]

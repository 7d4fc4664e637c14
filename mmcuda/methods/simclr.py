"""SimCLR: contrastive pretraining without labels (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mmcuda.data.cohort import Cohort
from mmcuda.errors import check_positive, check_range
from mmcuda.losses import SupConLoss
from mmcuda.methods.base import register_method
from mmcuda.methods.contrastive import Contrastive
from mmcuda.models.heads import ContrastiveModel


@register_method
@dataclass(frozen=True)
class SimCLR(Contrastive):
    """Two views of one image are positives."""

    name = "simclr"
    summary = "contrastive pretraining without labels: two views of one image are the positives"
    color = "#0072b2"
    marker = "o"
    role = "reference"

    temperature: float = 0.3
    """Temperature of the loss."""
    projection_hidden: int = 256
    """Hidden units of the projection head."""
    projection_size: int = 128
    """Length of the projections that the loss compares."""

    def __post_init__(self) -> None:
        check_positive(f"{self.name}.temperature", self.temperature)
        check_range(f"{self.name}.projection_hidden", self.projection_hidden, 1)
        check_range(f"{self.name}.projection_size", self.projection_size, 1)

    def build(self, encoder: nn.Module, cohort: Cohort) -> nn.Module:
        """Return encoder, projection head and loss."""
        criterion = SupConLoss(self.temperature, base_temperature=self.temperature)
        return ContrastiveModel(encoder, self.projection_hidden, self.projection_size, criterion)

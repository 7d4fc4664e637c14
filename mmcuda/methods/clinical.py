"""Contrastive pretraining whose positives share a clinical label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmcuda.data.augment import Augment
from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices
from mmcuda.data.table import ClinicalLabel
from mmcuda.errors import UserError, check_positive, check_range, did_you_mean
from mmcuda.losses import ClinicalSupConLoss
from mmcuda.methods.base import register_method
from mmcuda.methods.contrastive import Contrastive
from mmcuda.models.heads import ContrastiveModel
from mmcuda.train.batches import TrainingSet


@register_method
@dataclass(frozen=True)
class Clinical(Contrastive):
    """Images with a similar clinical value are positives, for several clinical values at once."""

    name = "clinical"
    summary = "contrastive pretraining whose positives share a clinical label"
    color = "#d55e00"
    marker = "D"
    needs = ("clinical",)

    labels: tuple[str, ...] = ()
    """The clinical labels to learn from; all of the cohort by default."""
    temperature: float = 1.0
    """Temperature of the loss, high because an image has many positives, few of them close."""
    sampler: Literal["shuffled", "class_aware"] = "shuffled"
    """shuffled: batches are drawn at random; class_aware: such that images find positives of the clinical labels."""
    balance: tuple[str, ...] = ()
    """Clinical labels that class_aware batches hold positives of; all that are learnt from by default."""
    projection_hidden: int = 256
    """Hidden units of the projection head."""
    projection_size: int = 128
    """Length of the projections that the loss compares."""

    def __post_init__(self) -> None:
        if self.balance and self.sampler != "class_aware":
            raise UserError(f"{self.name}.balance needs {self.name}.sampler class_aware, got {self.sampler}")
        check_positive(f"{self.name}.temperature", self.temperature)
        check_range(f"{self.name}.projection_hidden", self.projection_hidden, 1)
        check_range(f"{self.name}.projection_size", self.projection_size, 1)

    def check(self, cohort: Cohort) -> None:
        """Raise a UserError unless the cohort has the clinical labels that the method names."""
        super().check(cohort)
        known = list(cohort.clinical)
        for option in ("labels", "balance"):
            for name in getattr(self, option):
                if name not in known:
                    raise UserError(
                        f"{self.name}.{option} must be among {', '.join(known)}, got {name}{did_you_mean(name, known)}"
                    )

    def learnt(self, cohort: Cohort) -> dict[str, ClinicalLabel]:
        """Return the clinical labels whose positives are brought together."""
        return {name: label for name, label in cohort.clinical.items() if name in (self.labels or cohort.clinical)}

    def build(self, encoder: nn.Module, cohort: Cohort) -> nn.Module:
        """Return encoder, projection head and loss."""
        learnt = self.learnt(cohort)
        criterion = ClinicalSupConLoss(
            {name: label.relation for name, label in learnt.items()},
            weights={name: label.weight for name, label in learnt.items()},
            temperature=self.temperature,
            base_temperature=self.temperature,
        )
        return ContrastiveModel(encoder, self.projection_hidden, self.projection_size, criterion)

    def label_rows(self, train: Indices, seed: int) -> Indices:
        """Return the image [n_train] whose labels each training image gets: here its own."""
        return train

    def training_set(self, cohort: Cohort, augment: Augment, seed: int) -> TrainingSet:
        """Return the training images, two views each, with their clinical values: float64, NaN = missing."""
        learnt, rows = self.learnt(cohort), self.label_rows(cohort.train, seed)
        values: dict[str, Tensor] = {name: torch.from_numpy(label.values[rows]) for name, label in learnt.items()}
        balance = {}
        if self.sampler == "class_aware":
            chosen = [name for name in self.balance if name in learnt] or list(learnt)
            balance = {name: learnt[name].relation.tolerance for name in chosen}
        return TrainingSet(cohort, cohort.train, values, augment, views=2, balance=balance)

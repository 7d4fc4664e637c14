"""The options of fine-tuning: protocol, loss, labels, optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmcuda.data.config import DataConfig
from mmcuda.errors import UserError, check_positive, check_range
from mmcuda.train.config import Optimisation, Precision, PretrainJob

Mode = Literal["logistic", "linear", "full", "linear_full"]
Loss = Literal["bce", "ce"]
ClassWeights = Literal["none", "balanced"]


@dataclass(frozen=True)
class FinetuneConfig(Optimisation):
    """Supervised training of a classifier on an encoder. Logistic regression ignores the options of the optimiser."""

    mode: Mode = "logistic"
    """logistic: logistic regression on frozen features; linear: the linear layer on the frozen encoder by gradient
    descent; full: all weights; linear_full: logistic, then all weights from there. BatchNorm is in eval mode but in
    full."""
    loss: Loss = "bce"
    """bce: binary cross-entropy, mean over all labelled cells; ce: cross-entropy of each target, mean over the targets,
    so that a target with few labels counts as much as one with many."""
    class_weights: ClassWeights = "none"
    """balanced: all classes of a target weigh alike, however rare one of them is."""
    focal_gamma: float = 0.0
    """Exponent of the focal loss, which plays down the images that are already right; 0 is plain cross-entropy."""
    label_fraction: float = 1.0
    """Fraction of the training patients whose labels are used."""
    folds: int = 0
    """Cross-validation: train this many classifiers, each on the labelled patients outside its fold. 0: train one."""
    patience: int = 0
    """Early stopping: epochs without a lower validation loss before the training ends; the best epoch's weights are
    kept. 0: train all epochs."""
    validation_fraction: float = 0.2
    """Share of the labelled patients that early stopping validates on, where the data have no validation split."""
    seed: int = 0
    """Seed of the draw of labelled patients, of the folds and of the training."""
    bootstrap: int = 500
    """Patient-level bootstrap resamples behind the 95 % intervals."""
    threshold: Literal["youden", "f1"] = "youden"
    """What is highest at the threshold from which on a target is called positive: youden (sensitivity + specificity -
    1) or f1. It is chosen on the validation images, or on out-of-fold predictions (logistic, folds)."""
    epochs: int = 20
    """Passes over the labelled images."""
    batch_size: int = 128
    """Images per step, over all devices."""
    learning_rate: float = 1e-3
    """Highest learning rate of the encoder's last layer (AdamW, cosine)."""
    head_learning_rate: float = 3e-2
    """Highest learning rate of the linear layer."""
    layer_decay: float = 0.75
    """The learning rate of each layer of the encoder, relative to that of the layer above it."""
    weight_decay: float = 1e-2
    """Weight decay, on weights but not on biases and norms."""
    warmup: float = 0.05
    """Share of the training over which the learning rate rises."""
    precision: Precision = "no"
    """Mixed precision: no (fp32), bf16, or fp16 (GPU only)."""

    data: DataConfig | None = None
    """Other data than those of the pretraining."""

    def __post_init__(self) -> None:
        self.check("--")
        if not 0 < self.label_fraction <= 1:
            raise UserError(f"--label_fraction must be in 0..1, above 0, got {self.label_fraction:g}")
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"--validation_fraction must be between 0 and 1, got {self.validation_fraction:g}")
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"--folds must be 0 or at least 2, got {self.folds}")
        if self.mode == "logistic" and self.patience:
            raise UserError("--patience needs epochs: choose --mode linear, full or linear_full, got logistic")
        if self.mode == "logistic" and self.focal_gamma:
            raise UserError("--focal_gamma needs gradient descent: choose --mode linear or full, got logistic")
        check_range("--focal_gamma", self.focal_gamma, 0, 10)
        check_range("--patience", self.patience, 0)
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"--layer_decay must be in 0..1, above 0, got {self.layer_decay:g}")
        check_positive("--head_learning_rate", self.head_learning_rate)
        check_range("--seed", self.seed, 0)
        check_range("--bootstrap", self.bootstrap, 1)

    @property
    def name(self) -> str:
        """Name of the training's logs and checkpoint in a run folder."""
        return f"finetune-{self.mode}-seed{self.seed}"

    @property
    def frozen(self) -> bool:
        """Whether the encoder keeps its weights."""
        return self.mode in ("logistic", "linear")


@dataclass(frozen=True)
class FinetuneJob:
    """One fine-tuning: everything its weights depend on. Written beside every checkpoint."""

    pretraining: PretrainJob = field(default_factory=PretrainJob)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

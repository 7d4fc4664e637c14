"""Every option of the training flow. The text below a field is its help on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mmcuda.data.augment import Augment
from mmcuda.data.config import DataConfig
from mmcuda.errors import UserError, check_positive, check_range
from mmcuda.methods import Clinical, Method, encoder_name

Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class EncoderConfig:
    """The image encoder."""

    name: str = "darknet_tiny"
    """Any architecture of timm (resnet18, convnext_tiny, ...), or darknet_tiny, made for small images on a CPU."""
    pretrained: bool = False
    """Start from timm's natural-image weights (downloads them) instead of random ones."""
    weights: Path | None = None
    """Start from the weights in this file (.safetensors, tensors named as in timm) instead of random ones."""

    def __post_init__(self) -> None:
        if self.weights and self.pretrained:
            raise UserError("--encoder.weights and --encoder.pretrained exclude each other: give one of them")
        if self.weights:  # a saved configuration is valid from every folder
            object.__setattr__(self, "weights", self.weights.expanduser().absolute())

    @property
    def starts_trained(self) -> bool:
        """Whether the first weights are those of an earlier training, on natural images as a rule."""
        return self.pretrained or self.weights is not None

    def from_scratch(self) -> EncoderConfig:
        """Return the same architecture, to start from random weights."""
        return replace(self, pretrained=False, weights=None)


@dataclass(frozen=True)
class Optimisation:
    """The optimiser of one training: AdamW, learning rate warmed up linearly and lowered along a cosine to 0."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    precision: Precision

    def check(self, prefix: str) -> None:
        """Raise a UserError naming the first option that is out of range."""
        check_range(f"{prefix}epochs", self.epochs, 1)
        check_range(f"{prefix}batch_size", self.batch_size, 2)
        check_positive(f"{prefix}learning_rate", self.learning_rate)
        check_range(f"{prefix}weight_decay", self.weight_decay, 0, 1)
        check_range(f"{prefix}warmup", self.warmup, 0, 1)


@dataclass(frozen=True)
class PretrainConfig(Optimisation):
    """What every pretraining has, whatever its method."""

    epochs: int = 12
    """Passes over the training images."""
    batch_size: int = 64
    """Images per step, over all devices; each gives two views."""
    learning_rate: float = 1e-2
    """Highest learning rate (AdamW, cosine)."""
    weight_decay: float = 1e-2
    """Weight decay, on weights but not on biases and norms."""
    warmup: float = 0.2
    """Share of the training over which the learning rate rises."""
    precision: Precision = "no"
    """Mixed precision: no (fp32), bf16, or fp16 (GPU only)."""

    def __post_init__(self) -> None:
        self.check("--pretrain.")


@dataclass(frozen=True)
class EvaluateConfig:
    """The label-efficiency study: linear probes of frozen features on ever fewer labels."""

    label_fractions: tuple[float, ...] = (0.02, 0.05, 0.25, 1.0)
    """Fractions of the training patients whose labels are used."""
    draws: int = 3
    """Draws of the labelled patients at each fraction below 1; scores are means over draws."""
    bootstrap: int = 500
    """Patient-level bootstrap resamples behind the 95 % intervals."""
    threshold: Literal["youden", "f1"] = "youden"
    """What is highest at the threshold, on the validation split or else on out-of-fold predictions of the labelled
    images: youden (sensitivity + specificity - 1) or f1."""

    def __post_init__(self) -> None:
        if not self.label_fractions or not all(0 < f <= 1 for f in self.label_fractions):
            raise UserError(f"label_fractions must be fractions in 0..1, above 0, got {list(self.label_fractions)}")
        if len(set(self.label_fractions)) < len(self.label_fractions):
            raise UserError(f"label_fractions must differ, got {list(self.label_fractions)}")
        check_range("draws", self.draws, 1)
        check_range("bootstrap", self.bootstrap, 1)


@dataclass(frozen=True)
class PretrainJob:
    """One pretraining: everything its weights depend on. Written beside every checkpoint."""

    method: Method = field(default_factory=Clinical)
    seed: int = 0
    """Seed of the weights, the order of the images and their augmentation."""
    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    augment: Augment = field(default_factory=Augment)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)

    def __post_init__(self) -> None:
        check_range("--seed", self.seed, 0)
        if self.method.weights == "required" and not self.encoder.starts_trained:
            raise UserError(
                f"{self.method.name} needs weights: give --encoder.weights FILE, or --encoder.pretrained true"
            )

    @property
    def start(self) -> EncoderConfig:
        """The encoder with its first weights."""
        return self.encoder.from_scratch() if self.method.weights == "never" else self.encoder

    @property
    def name(self) -> str:
        """Name of the job's logs and checkpoint in a run folder."""
        return encoder_name(self.method.name, self.method.label_names, self.seed)

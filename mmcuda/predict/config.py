"""The options of prediction and export. The text below a field is its help on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmcuda.data.config import DataConfig
from mmcuda.errors import UserError


@dataclass(frozen=True)
class PredictConfig:
    """Which images to predict: a folder's, a table's, or those of the cohort that the model was trained on."""

    images: Path | None = None
    """Folder: every image in it and in the folders below."""
    data: DataConfig = field(default_factory=DataConfig)
    """A table; it needs no labels, and of the columns only the image's. By default the model's own cohort."""
    batch_size: int = 64
    """Images at a time."""

    def __post_init__(self) -> None:
        if self.images and self.data != DataConfig():
            raise UserError("--images and --data exclude each other: give one of them")
        if self.batch_size < 1:
            raise UserError(f"--batch_size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True)
class ExportConfig:
    """For which programs a model is written."""

    format: Literal["safetensors", "onnx"] = "safetensors"
    """safetensors: the weights, for mmcuda.load and your own programs; onnx: the computation from uint8 images to
    features and probabilities, for ONNX Runtime and others."""

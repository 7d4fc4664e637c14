"""What a model is: all that prediction needs beside its weights, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import timm
from torch import nn

import mmcuda
from mmcuda.errors import UserError
from mmcuda.models.encoder import build_encoder, normalise_inputs
from mmcuda.targets import Target, target_from_json

DESCRIPTION = "config.json"  # beside the weights, in checkpoints and exports


@dataclass(frozen=True)
class ModelDescription:
    """An encoder, how its images are prepared, and the targets of its classifier if it has one.

    An image is read by ``reader`` to [C, image_size, image_size] in 0..255 and divided by 255; then ``mean`` is
    subtracted and the result divided by ``std``.
    """

    architecture: str  # of timm, or darknet_tiny
    image_size: int  # side in pixels
    channels: tuple[str, ...]  # C names
    reader: str  # name and version of the decoder, such as files-v1-3
    mean: tuple[float, ...] = ()  # [C]; empty: pixels in 0..1 as they are
    std: tuple[float, ...] = ()  # [C]
    targets: dict[str, Target] = field(default_factory=dict)  # by name; none: an encoder without a classifier
    thresholds: dict[str, float] = field(default_factory=dict)  # probability from which a target counts as positive
    mmcuda: str = mmcuda.__version__  # that wrote it

    def build_encoder(self) -> nn.Module:
        """Return the encoder, images [B, C, H, W] in 0..1 to features [B, F], with random weights.

        Raises:
            UserError: if timm does not know the architecture.
        """
        if not timm.is_model(self.architecture):
            raise UserError(f"the model's architecture must be one of timm {timm.__version__}, got {self.architecture}")
        encoder = build_encoder(self.architecture, len(self.channels), self.image_size)
        if self.mean:
            normalise_inputs(encoder, self.mean, self.std)
        return encoder

    def as_json(self) -> dict[str, Any]:
        """Return what ``read_description`` reads."""
        return asdict(self) | {"targets": {name: target.as_json() for name, target in self.targets.items()}}


def read_description(folder: Path) -> ModelDescription:
    """Read the description of the model in ``folder``.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = folder / DESCRIPTION
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        missing = {item.name for item in fields(ModelDescription)} ^ found.keys()
        if missing:
            raise ValueError(f"{min(missing)} is missing or unknown")
        values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
        values["targets"] = {name: target_from_json(target) for name, target in found["targets"].items()}
        return ModelDescription(**values)
    except FileNotFoundError:
        raise UserError(f"no checkpoint in {folder}: {DESCRIPTION} is missing") from None
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe a model: {error}") from None

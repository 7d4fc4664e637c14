"""Image encoders: any architecture of timm, and one small enough to train on a CPU."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import register_model
from timm.models.cspnet import CspModelCfg, CspNet, CspStagesCfg, CspStemCfg
from torch import Tensor, nn

from mmcuda.errors import UserError

DARKNET_TINY = CspModelCfg(
    stem=CspStemCfg(out_chs=16, kernel_size=3, stride=2),
    stages=CspStagesCfg(
        depth=(0, 1, 1), out_chs=(32, 64, 128), stride=2, bottle_ratio=0.5, stage_type="dark", block_type="dark"
    ),
    act_layer="relu",
)


def darknet_tiny(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """DarkNet for images of about 64 x 64: 3x3 stem, three stages of 32, 64 and 128 channels, 0.2 M parameters."""
    model: nn.Module = CspNet(DARKNET_TINY, **{k: v for k, v in kwargs.items() if k in ("in_chans", "num_classes")})
    return model


register_model(darknet_tiny)  # timm then builds it by name, like its own


def check_encoder(name: str, pretrained: bool, image_size: int, weights: Path | None = None) -> None:
    """Raise a UserError unless timm has this architecture, it takes images of this size, and the weights are there."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them"
        raise UserError(f"--encoder.name must be an architecture of timm, got '{name}': {hint}")
    if pretrained and not timm.models.is_model_pretrained(name):
        raise UserError(f"--encoder.pretrained: {name} has no pretrained weights; choose another --encoder.name")
    try:
        with torch.inference_mode():
            build_encoder(name, 3, image_size).eval()(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"--encoder.name {name} does not take images of --data.image_size {image_size}: {error}"
        ) from error
    if weights:
        build_encoder(name, 3, image_size, weights=weights)


def build_encoder(
    name: str,
    in_channels: int,
    image_size: int,
    pretrained: bool = False,
    weights: Path | None = None,
) -> nn.Module:
    """Build an image encoder: images [B, C, H, W] in 0..1 to features [B, F].

    Args:
        name: an architecture of timm, or ``darknet_tiny``.
        in_channels: channels of the images.
        image_size: their side in pixels; transformers are built for it.
        pretrained: start from timm's weights; the first convolution is adapted to ``in_channels``.
        weights: start from the weights in this .safetensors file, adapted likewise.

    Raises:
        UserError: if ``weights`` is missing, damaged, or of another architecture.
    """
    if weights:
        encoder = _create_from_file(name, in_channels, image_size, weights)
    else:
        encoder = _create(name, in_channels, image_size, pretrained=pretrained)
    if weights or pretrained:
        normalise_inputs(encoder, *timm_statistics(name, in_channels))
    return encoder


def _create(name: str, in_channels: int, image_size: int, **options: object) -> nn.Module:
    options |= {"in_chans": in_channels, "num_classes": 0}
    encoder: nn.Module
    try:
        encoder = timm.create_model(name, img_size=image_size, **options)
    except TypeError:  # a convolutional network takes any size
        encoder = timm.create_model(name, **options)
    return encoder


def _create_from_file(name: str, in_channels: int, image_size: int, weights: Path) -> nn.Module:
    what = f"--encoder.weights {weights}"
    try:
        with safe_open(weights, "pt") as file:
            tensors = set(file.keys())
        overlay = {"file": str(weights)}
        encoder = _create(name, in_channels, image_size, pretrained=True, pretrained_cfg_overlay=overlay)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{what} cannot be read: {error}") from error
    except RuntimeError as error:  # a tensor of another shape
        raise UserError(f"{what} does not fit --encoder.name {name}: {error}") from error
    if not getattr(encoder, "pretrained_cfg", None):
        raise UserError(f"{what} does not fit --encoder.name {name}: timm has no pretrained form of it")
    if missing := sorted(encoder.state_dict().keys() - tensors):  # timm leaves them random
        raise UserError(f"{what} does not fit --encoder.name {name}: it lacks {missing[0]}")
    return encoder


def timm_statistics(name: str, in_channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of the pixels, [C] each, that timm's weights of an architecture were made for.

    Images of other than three channels get the mean over the three colours.
    """
    config: Any = timm.get_pretrained_cfg(name)
    mean, std = (tuple(map(float, values)) for values in (config.mean, config.std))
    if in_channels == 3:
        return mean, std
    return (sum(mean) / 3,) * in_channels, (sum(std) / 3,) * in_channels


def normalise_inputs(encoder: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let ``encoder`` normalise its images itself, from 0..1: subtract ``mean`` [C] and divide by ``std`` [C]."""
    subtrahend, divisor = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))

    def normalise(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return (inputs[0] - subtrahend.to(inputs[0])) / divisor.to(inputs[0])

    encoder.register_forward_pre_hook(normalise)

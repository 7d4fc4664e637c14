"""Image encoders: any architecture of timm, and one small enough to train on a CPU."""

from __future__ import annotations

import difflib

import timm
from timm.models import register_model
from timm.models.cspnet import CspModelCfg, CspNet, CspStagesCfg, CspStemCfg
from torch import nn

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


def check_encoder(name: str, pretrained: bool) -> None:
    """Raise a UserError unless timm has this architecture and, if they are asked for, weights for it."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them"
        raise UserError(f"--encoder.name must be an architecture of timm, got '{name}': {hint}")
    if pretrained and not timm.models.is_model_pretrained(name):
        raise UserError(f"--encoder.pretrained: {name} has no pretrained weights; choose another --encoder.name")


def build_encoder(name: str, in_channels: int, pretrained: bool = False) -> nn.Module:
    """Build an image encoder: images [B, C, H, W] in 0..1 to features [B, F].

    Args:
        name: an architecture of timm, or ``darknet_tiny``.
        in_channels: channels of the images.
        pretrained: start from timm's weights; its first convolution is adapted to ``in_channels``.

    Raises:
        UserError: if timm has no such architecture, or no weights for it.
    """
    check_encoder(name, pretrained)
    encoder: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=in_channels, num_classes=0)
    return encoder

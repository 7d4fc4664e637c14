"""Encoders without any pretraining here: the floor of a comparison, and weights from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from mmcuda.methods.base import Method, register_method


@register_method
@dataclass(frozen=True)
class Random(Method):
    """Random weights."""

    name = "random"
    summary = "an untrained encoder: what the classifier gets without any pretraining"
    color = "#8a8a8a"
    marker = "s"
    role = "untrained"
    trains = False
    weights = "never"


@register_method
@dataclass(frozen=True)
class ImageNet(Method):
    """The weights that are given, as they are."""

    name = "imagenet"
    summary = "the weights that are given, of natural images as a rule, without any pretraining here"
    color = "#e69f00"
    marker = "^"
    role = "given"
    trains = False
    weights = "required"

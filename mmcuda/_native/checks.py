"""Checks of arguments. A message names the argument, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(name: str, value: object) -> None:
    """Raise a TypeError naming the argument unless ``value`` is a dense tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")


def check_number(name: str, value: object, zero_allowed: bool) -> None:
    """Raise an error naming the argument unless ``value`` is a finite number that is not negative."""
    if not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not (value >= 0 if zero_allowed else value > 0) or value == math.inf:
        raise ValueError(f"{name} must be {'not negative' if zero_allowed else 'positive'} and finite, got {value}")


def can_inspect_values(tensor: Tensor) -> bool:
    """Whether values may be read: an accelerator would be waited for; compiled or transformed there are none yet."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling() or isinstance(tensor, FakeTensor):
        return False
    return not torch._C._are_functorch_transforms_active()


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a ValueError naming the argument unless ``value`` is one of ``choices``."""
    if value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")


def check_variant(positives: object, denominator: object) -> None:
    """Check which of the losses is asked for."""
    check_choice("positives", positives, ("out", "in"))
    check_choice("denominator", denominator, ("all", "negatives", "sincere"))
    if positives == "in" and denominator == "sincere":
        raise ValueError("denominator must be 'all' or 'negatives' for positives='in', got 'sincere'")


def check_execution(reduction: object, impl: object) -> None:
    """Check how the losses are reduced and by what they are computed."""
    check_choice("reduction", reduction, ("none", "mean", "has_positives", "sum"))
    check_choice("impl", impl, ("auto", "fused", "reference"))


def check_flag(name: str, value: object) -> None:
    """Raise a TypeError naming the argument unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_features(name: str, value: object, shape: str) -> None:
    """Check a tensor of features; ``shape`` names its dimensions, such as "[N, D]"."""
    _check_features(name, value, shape, isinstance(value, Tensor) and value.ndim == shape.count(",") + 1)


def check_views(name: str, value: object) -> None:
    """Check features of several views, [B, V, ...], or of one, [N, D]."""
    _check_features(name, value, "[B, V, D] or [N, D]", isinstance(value, Tensor) and value.ndim >= 2)


def _check_features(name: str, value: object, shape: str, fits: bool) -> None:
    check_tensor(name, value)
    assert isinstance(value, Tensor)
    if value.dtype not in DTYPES:
        raise ValueError(f"{name} must be float16, bfloat16, float32 or float64, got {value.dtype}")
    if not fits or value.numel() == 0:
        raise ValueError(f"{name} must be {shape} with at least one element, got shape {list(value.shape)}")


def check_keys(keys: object, anchors: Tensor) -> None:
    """Check the keys of cross-contrast against its anchors [N, D]."""
    check_features("keys", keys, "[M, D]")
    assert isinstance(keys, Tensor)
    if keys.shape[1] != anchors.shape[1]:
        raise ValueError(f"keys must be [M, D] with D = {anchors.shape[1]} as in anchors, got {list(keys.shape)}")
    if keys.dtype != anchors.dtype:
        raise ValueError(f"keys must have the dtype of anchors, {anchors.dtype}, got {keys.dtype}")
    check_device("keys", keys, "anchors", anchors)


def check_anchor_offset(anchor_offset: object, views: object, anchors: int, keys: int) -> None:
    """Check which of the keys are the anchors, and that samples have all their views."""
    check_integer("views", views, 1)
    assert isinstance(views, int)
    if anchor_offset is None:
        if views != 1:
            raise ValueError(f"views must be 1 without anchor_offset, got {views}")
        return
    check_integer("anchor_offset", anchor_offset, 0)
    assert isinstance(anchor_offset, int)
    if anchor_offset + anchors > keys:
        raise ValueError(
            f"anchor_offset must be at most M - N = {keys - anchors}, so that the anchors are keys, got {anchor_offset}"
        )
    for name, value in (("M", keys), ("N", anchors), ("anchor_offset", anchor_offset)):
        if value % views:
            raise ValueError(f"views must divide {name} = {value}, got {views}")


def check_integer(name: str, value: object, least: int) -> None:
    """Raise an error naming the argument unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_temperature(temperature: object, owner: str, like: Tensor) -> None:
    """Check a temperature: a number, or a tensor [] on the device of ``like``, the argument ``owner``."""
    if not isinstance(temperature, Tensor):
        return check_number("temperature", temperature, zero_allowed=False)
    if temperature.ndim != 0 or not temperature.is_floating_point():
        wanted = "a number or a floating tensor []"
        raise ValueError(f"temperature must be {wanted}, got {temperature.dtype} {list(temperature.shape)}")
    check_device("temperature", temperature, owner, like)
    if can_inspect_values(temperature) and not 0 < temperature.item() < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature.item()}")
    return None


def check_mask(
    mask: object,
    attributes: Sequence[object],
    shape: str,
    sizes: tuple[int, int],
    denominator: str,
    owner: str,
    like: Tensor,
) -> None:
    """Check a mask of ``sizes``, whose dimensions ``shape`` names, such as "[B, B]"; it replaces attributes."""
    if attributes:
        raise ValueError("labels and mask cannot be given together: give one of them")
    check_tensor("mask", mask)
    assert isinstance(mask, Tensor)
    if tuple(mask.shape) != sizes or mask.is_complex():
        raise ValueError(f"mask must be real and {shape} = {list(sizes)}, got {mask.dtype} {list(mask.shape)}")
    if mask.requires_grad:
        raise ValueError("mask must not require a gradient: the loss has none for it")
    check_device("mask", mask, owner, like)
    if can_inspect_values(mask):
        if not ((mask >= 0) & (mask < math.inf)).all():
            raise ValueError("mask must be finite and not negative")
        if denominator != "all" and (mask > 1).any():
            raise ValueError(f"mask must be at most 1 for denominator={denominator!r}, got {mask.max().item()}")


def check_anchor_weights(weights: object, shape: str, size: int, owner: str, like: Tensor) -> None:
    """Check weights [size]; ``shape`` names the dimension, such as "[B]"."""
    check_tensor("anchor_weights", weights)
    assert isinstance(weights, Tensor)
    if tuple(weights.shape) != (size,) or weights.is_complex():
        got = f"{weights.dtype} {list(weights.shape)}"
        raise ValueError(f"anchor_weights must be real and {shape} = [{size}], got {got}")
    check_device("anchor_weights", weights, owner, like)
    if can_inspect_values(weights) and not ((weights >= 0) & (weights < math.inf)).all():
        raise ValueError("anchor_weights must be finite and not negative")


def check_device(name: str, tensor: Tensor, owner: str, like: Tensor) -> None:
    """Raise a ValueError naming the argument unless ``tensor`` is on the device of ``like``, the argument ``owner``."""
    if tensor.device != like.device:
        raise ValueError(f"{name} must be on the device of {owner}, {like.device}, got {tensor.device}")

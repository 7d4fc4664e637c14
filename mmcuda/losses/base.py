"""Base classes of the loss modules, and the checks that they share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcuda._native.checks import check_features, check_tensor
from mmcuda.functional import Implementation, Reduction
from mmcuda.relations import Equal, is_known, sort_values


class ContrastiveLoss(nn.Module):
    """A loss with its reduction and its implementation."""

    repr_fields: tuple[str, ...] = ("temperature", "reduction", "impl")  # the settings that print shows

    def __init__(self, reduction: Reduction, impl: Implementation) -> None:
        super().__init__()
        self.reduction: Reduction = reduction
        self.impl: Implementation = impl

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return ", ".join(f"{name}={_text(getattr(self, name))}" for name in self.repr_fields)


class SelfContrastLoss(ContrastiveLoss):
    """A loss of a batch against itself.

    ``temperature`` may be a tensor: it then gets a gradient, and a parameter is one of the module's.
    """

    def __init__(
        self, temperature: float | Tensor = 0.07, *, reduction: Reduction = "mean", impl: Implementation = "auto"
    ) -> None:
        super().__init__(reduction, impl)
        self.temperature = temperature


def _text(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.item():g}{' (learnable)' if value.requires_grad else ''}"
    return repr(value)


def check_pairs(name: str, first: Tensor, other_name: str, second: Tensor, *, as_many: bool = True) -> None:
    """Raise an error naming the argument unless both are [N, D] of one shape (but for N: not ``as_many``) and kind."""
    check_features(name, first, "[N, D]")
    check_features(other_name, second, "[N, D]")
    alike = second.shape[1] == first.shape[1] and second.dtype == first.dtype and second.device == first.device
    if not alike or (as_many and len(second) != len(first)):
        but = "" if as_many else " but for the first dimension"
        raise ValueError(f"{other_name} must be like {name}, {_kind(first)}{but}, got {_kind(second)}")


def check_labels(name: str, labels: Tensor, shape: str, size: int) -> None:
    """Raise an error naming the argument unless it is a real tensor [size]; ``shape`` names the dimension."""
    check_tensor(name, labels)
    if labels.shape != (size,) or labels.is_complex():
        raise ValueError(f"{name} must be real and {shape} = [{size}], got {labels.dtype} {list(labels.shape)}")


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def classes_of_pairs(labels: Tensor) -> Tensor:
    """Return class codes [N] of ``labels`` [N] in which every sample without a value is a class of its own.

    So the two members of a pair stay positives of each other when their label is missing.
    """
    ordered, order = sort_values(labels, Equal()).sort()
    starts = ~is_known(ordered) | (ordered != ordered.roll(1))  # of a class, in sorted order
    return torch.empty_like(order).scatter_(0, order, starts.cumsum(0))

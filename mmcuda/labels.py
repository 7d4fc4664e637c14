"""Label relations: which pairs of samples are positives under one clinical value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Equal:
    """Positives share the value exactly: class, grade, patient or eye id."""

    @property
    def tolerance(self) -> float:
        """Largest difference between two positives."""
        return 0.0

    def __str__(self) -> str:
        return "equal"


@dataclass(frozen=True)
class Within:
    """Positives differ by at most ``tolerance``, in the unit of the value.

    Raises:
        ValueError: if ``tolerance`` is negative or not finite.

    Example:
        >>> Within(25.0)  # central subfield thickness, micrometres
        Within(tolerance=25.0)
    """

    tolerance: float

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, zero_allowed=True)

    def __str__(self) -> str:
        return f"within {self.tolerance:g}"


Relation = Equal | Within


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


@dataclass(frozen=True)
class LabelSet:
    """One clinical value of every sample, the relation that makes positives of it, and its weight in the loss.

    A value is missing if it is -1 (integer labels) or not finite (floating labels). A sample without a value has no
    positives but its own other views.

    Raises:
        TypeError: if ``values`` is not a dense tensor, ``relation`` not a relation, ``weight`` not a number.
        ValueError: if ``values`` is not [B], is complex, or ``weight`` is negative or not finite.
    """

    values: Tensor  # [B] labels
    relation: Relation
    weight: float = 1.0
    name: str = "labels"  # in messages

    def __post_init__(self) -> None:
        check_tensor(self.name, self.values)
        if self.values.ndim != 1 or self.values.is_complex():
            raise ValueError(f"{self.name} must be real and [B], got {self.values.dtype} {list(self.values.shape)}")
        if not isinstance(self.relation, Equal | Within):
            raise TypeError(f"relation of {self.name} must be Equal() or Within(tolerance), got {self.relation!r}")
        check_number(f"weight of {self.name}", self.weight, zero_allowed=True)

    def codes(self) -> Tensor:
        """Return the values as the kernels read them, [B]: int64 with -1 = missing, or float64 with NaN = missing."""
        if self.values.is_floating_point():
            return self.values.double()
        if isinstance(self.relation, Equal):
            return self.values.long()
        return self.values.double().masked_fill(self.values == -1, torch.nan)

    def positives(self) -> Tensor:
        """Return the dense relation, [B, B] bool. The diagonal is true: views of one sample are always positives."""
        codes = self.codes()
        known = codes.isfinite() if codes.is_floating_point() else codes != -1
        if isinstance(self.relation, Equal):
            near = codes[:, None] == codes
        else:
            near = (codes[:, None] - codes).abs() <= self.relation.tolerance
        same_sample = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
        return (near & known & known[:, None]) | same_sample

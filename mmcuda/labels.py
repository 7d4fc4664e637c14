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
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance must be finite and not negative, got {self.tolerance}")

    def __str__(self) -> str:
        return f"within {self.tolerance:g}"


Relation = Equal | Within


@dataclass(frozen=True)
class LabelSet:
    """One clinical value of every sample, the relation that makes positives of it, and its weight in the loss.

    A value is missing if it is -1 (integer labels) or not finite (floating labels). A sample without a value has no
    positives but its own other views.

    Raises:
        ValueError: if ``values`` is not [B], is complex, or ``weight`` is negative or not finite.
    """

    values: Tensor  # [B] labels
    relation: Relation
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or self.values.is_complex():
            raise ValueError(f"labels must be real and [B], got {self.values.dtype} {list(self.values.shape)}")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")

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

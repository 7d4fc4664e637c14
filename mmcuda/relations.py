"""Label relations, and the attributes of samples that they relate: which pairs are positives, and how much."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcuda._native.checks import can_inspect_values, check_number, check_tensor


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


@dataclass(frozen=True)
class Rbf:
    """Soft positives: exp(-(a - b)^2 / 2 sigma^2) for the values a and b, and 0 where they are over 6 sigma apart.

    Args:
        sigma: the difference, in the unit of the value, at which a pair counts exp(-1/2) = 0.61.

    Raises:
        ValueError: if ``sigma`` is not positive and finite.

    Example:
        >>> Rbf(10.0)  # visual acuity, letters
        Rbf(sigma=10.0)
    """

    sigma: float

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, zero_allowed=False)

    @property
    def tolerance(self) -> float:
        """Largest difference between two positives."""
        return 6 * self.sigma

    def __str__(self) -> str:
        return f"rbf {self.sigma:g}"


@dataclass(frozen=True)
class Overlap:
    """Soft positives: the Jaccard overlap of two multi-hot labels, over the cells that are known in both.

    That is |1 in both| / |1 in either|, or 1 where neither has a 1 (two healthy samples agree), or 0 where no cell is
    known in both.

    Example:
        >>> biomarkers = torch.tensor([[1, 0, 1], [1, 1, -1], [0, 0, 0]])  # [B, C], -1 is not known
        >>> Attribute(biomarkers, Overlap()).dense()
        tensor([[1.0000, 0.5000, 0.0000],
                [0.5000, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]], dtype=torch.float64)
    """

    @property
    def tolerance(self) -> float:
        """Of the sample numbers, which are ranked in place of the values: a sample is near itself only."""
        return 0.0

    def __str__(self) -> str:
        return "overlap"


Relation = Equal | Within | Rbf | Overlap


def check_relation(name: str, value: object) -> None:
    """Raise a TypeError naming the argument unless ``value`` is a relation."""
    if not isinstance(value, Equal | Within | Rbf | Overlap):
        raise TypeError(f"{name} must be Equal(), Within(tolerance), Rbf(sigma) or Overlap(), got {value!r}")


@dataclass(frozen=True)
class Attribute:
    """One attribute of every sample, as a clinical value, with the relation that makes positives and its weight.

    A value is missing if it is -1 (integer labels) or not finite (floating labels); in multi-hot labels a cell is
    missing if it is -1 or NaN. A sample without a value has no positives but its own other views.

    Args:
        values: [B] labels, or [B, C] of 0 and 1 for :class:`Overlap`.
        relation: what makes positives.
        weight: w >= 0 of this attribute in the loss.
        name: of the labels, for messages.
        keys: [B'] or [B', C], the values of the keys in cross-contrast, whose samples are others than the anchors';
            None: both are the same samples.

    Raises:
        TypeError: if ``values`` is not a dense tensor, ``relation`` not a relation, ``weight`` not a number.
        ValueError: if ``values`` has the wrong shape or is complex, ``keys`` is not like ``values``, a cell of a
            multi-hot label is not 0, 1, -1 or NaN (told on the CPU outside a compiled graph), or ``weight`` is negative
            or not finite.

    Example:
        >>> Attribute(torch.tensor([310.0, 305.0, torch.nan]), Within(25.0)).dense()
        tensor([[ True,  True, False],
                [ True,  True, False],
                [False, False,  True]])
    """

    values: Tensor
    relation: Relation
    weight: float = 1.0
    name: str = "labels"
    keys: Tensor | None = None

    def __post_init__(self) -> None:
        check_tensor(self.name, self.values)
        check_relation(f"relation of {self.name}", self.relation)
        check_number(f"weight of {self.name}", self.weight, zero_allowed=True)
        self._check_values(self.name, self.values)
        if self.keys is None:
            return
        name = f"keys of {self.name}"
        check_tensor(name, self.keys)
        self._check_values(name, self.keys)
        if self.keys.is_floating_point() != self.values.is_floating_point():
            raise ValueError(
                f"{name} must be floating if and only if the values are, got {self.keys.dtype} for {self.values.dtype}"
            )
        if self.keys.shape[1:] != self.values.shape[1:]:
            wanted = f"[B', {self.values.shape[1]}], as many cells as the values have"
            raise ValueError(f"{name} must be {wanted}, got {list(self.keys.shape)}")
        if self.keys.device != self.values.device:
            devices = f"{self.values.device}, got {self.keys.device}"
            raise ValueError(f"{name} must be on the device of the values, {devices}")

    def _check_values(self, name: str, values: Tensor) -> None:
        multi_hot = isinstance(self.relation, Overlap)
        if values.ndim != 1 + multi_hot or values.is_complex() or (multi_hot and values.shape[1] == 0):
            wanted = "[B, C], C > 0, for Overlap()" if multi_hot else "[B]"
            raise ValueError(f"{name} must be real and {wanted}, got {values.dtype} {list(values.shape)}")
        if (
            multi_hot
            and can_inspect_values(values)
            and not ((values.double().nan_to_num(-1).abs() - 0.5).abs() == 0.5).all()
        ):
            raise ValueError(f"{name} must be 0 or 1, or -1 or NaN where it is not known, for Overlap()")

    def dense(self) -> Tensor:
        """Return the relation of every pair of samples, [B, B'], bool or float64 in [0, 1].

        The diagonal is 1 where anchors and keys are the same samples: views of one sample are always positives.
        """
        others = self.values if self.keys is None else self.keys
        if isinstance(self.relation, Overlap):
            related = _jaccard(self.values, others)
        else:
            a, b = sort_values(self.values, self.relation)[:, None], sort_values(others, self.relation)
            related = a == b
            if self.relation.tolerance > 0:
                related = related | ((a - b).abs() <= self.relation.tolerance)
            related = related & is_known(a) & is_known(b)
            if isinstance(self.relation, Rbf):
                related = torch.exp(-0.5 * ((a - b) / self.relation.sigma).square()).where(related, 0)
        if self.keys is None:
            related = related.masked_fill(torch.eye(len(related), dtype=torch.bool, device=related.device), 1)
        return related


def sort_values(values: Tensor, relation: Relation) -> Tensor:
    """Return what is compared and sorted: int64 where -1 is missing, or float64 where what is not finite is missing."""
    if values.is_floating_point():
        return values.double()
    if isinstance(relation, Equal):
        return values.long()
    numbers = values.double()
    return numbers.masked_fill(numbers == -1, torch.nan)


def is_known(values: Tensor) -> Tensor:
    """Return which of the values, see :func:`sort_values`, are not missing."""
    return values.isfinite() if values.is_floating_point() else values != -1


def cells(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return which cells of a multi-hot label are 1, and which are known, each bool [B, C]."""
    ones = values == 1
    return ones, ones | (values == 0)


def _jaccard(rows: Tensor, columns: Tensor) -> Tensor:
    """Return |1 in both| / |1 in either| over the cells known in both, [B, B'] float64; see :class:`Overlap`."""
    ones, known = (each.double() for each in cells(rows))
    other_ones, other_known = (each.double() for each in cells(columns))
    both = ones @ other_ones.T
    either = ones @ other_known.T + known @ other_ones.T - both
    comparable = known @ other_known.T > 0
    return torch.where(either > 0, both / either.clamp_min(1), comparable.double())

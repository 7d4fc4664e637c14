"""Targets: what is predicted, by kind. Each kind knows how it is read, learnt, predicted and scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from mmcuda.errors import UserError, did_you_mean
from mmcuda.targets.base import Target
from mmcuda.targets.binary import Binary
from mmcuda.targets.classes import Classes
from mmcuda.targets.continuous import Continuous
from mmcuda.targets.multiclass import Multiclass
from mmcuda.targets.ordinal import Ordinal

KINDS: dict[str, type[Target]] = {kind.kind: kind for kind in (Binary, Multiclass, Ordinal, Continuous)}
Targets = Mapping[str, Target]  # by name, in the order of their columns
TargetSpec = dict[str, Any] | tuple[Any, ...] | str | None


def parse_targets(spec: TargetSpec) -> dict[str, tuple[str, tuple[str, ...]] | None]:
    """Return the kind of each target column and the order of its classes; None where the kind is to be inferred.

    Raises:
        UserError: naming the column whose kind is not one of ``KINDS``.
    """
    items: Iterable[Any] = [spec] if isinstance(spec, str | dict) else spec or ()
    found: dict[str, tuple[str, tuple[str, ...]] | None] = {}
    for item in items:
        for column, kind in item.items() if isinstance(item, dict) else [(str(item), None)]:
            found[str(column)] = None if kind is None else _parse_kind(column, kind)
    return found


def _parse_kind(column: str, kind: Any) -> tuple[str, tuple[str, ...]]:
    name, order = next(iter(kind.items()), ("", None)) if isinstance(kind, dict) else (kind, ())
    if name not in KINDS or (isinstance(kind, dict) and not (len(kind) == 1 and isinstance(order, list | tuple))):
        raise UserError(
            f"--data.targets: {column} must be one of {', '.join(KINDS)}, or {{ordinal: [lowest, ..., highest]}}; got "
            f"{kind}{did_you_mean(str(name), KINDS)}"
        )
    return name, tuple(map(str, order))


def target_from_json(found: Mapping[str, Any]) -> Target:
    """Return the target of ``Target.as_json``."""
    values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    return KINDS[values.pop("kind")](**values)


def by_kind(targets: Targets) -> dict[str, list[str]]:
    """Return the names of the targets of each kind, in the order in which they come."""
    found: dict[str, list[str]] = {}
    for name, target in targets.items():
        found.setdefault(target.kind, []).append(name)
    return found


def logit_columns(targets: Targets) -> dict[str, slice]:
    """Return where the logits of each target are, among those of all."""
    return _slices({name: target.logits for name, target in targets.items()})


def output_columns(targets: Targets) -> dict[str, slice]:
    """Return where the predictions of each target are, among those of all."""
    return _slices({name: target.outputs for name, target in targets.items()})


def _slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    ends = list(accumulate(sizes.values()))
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


__all__ = [
    "KINDS",
    "Binary",
    "Classes",
    "Continuous",
    "Multiclass",
    "Ordinal",
    "Target",
    "TargetSpec",
    "Targets",
    "by_kind",
    "logit_columns",
    "output_columns",
    "parse_targets",
    "target_from_json",
]

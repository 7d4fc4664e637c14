"""Targets: what is predicted, by kind. Each kind knows how it is read, learnt, predicted and scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcuda.errors import UserError, did_you_mean
from mmcuda.targets.base import Floats, Target
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
    return name, tuple(map(str, order or ()))


def target_from_json(found: Mapping[str, Any]) -> Target:
    """Return the target of ``Target.as_json``."""
    values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    return KINDS[values.pop("kind")](**values)


def by_kind(targets: Targets) -> dict[str, list[str]]:
    """Return the names of the targets of each kind that there is, in the order of ``KINDS``: binary ones first."""
    found = {kind: [name for name, target in targets.items() if target.kind == kind] for kind in KINDS}
    return {kind: names for kind, names in found.items() if names}


def logit_columns(targets: Targets) -> dict[str, slice]:
    """Return where the logits of each target are, among those of all."""
    return _slices({name: target.logits for name, target in targets.items()})


def output_columns(targets: Targets) -> dict[str, slice]:
    """Return where the predictions of each target are, among those of all."""
    return _slices({name: target.outputs for name, target in targets.items()})


def output_names(targets: Targets) -> list[str]:
    """Return the names of the columns of the predictions of all targets."""
    return [column for name, target in targets.items() for column in target.columns(name)]


def activate_all(targets: Targets, logits: npt.NDArray[Any]) -> Floats:
    """Return the predictions of all targets, [n, outputs], for their logits [n, logits]; NaN stays NaN."""
    columns = logit_columns(targets)
    return np.concatenate([target.activate(logits[:, columns[name]]) for name, target in targets.items()], axis=1)


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
    "activate_all",
    "by_kind",
    "logit_columns",
    "output_columns",
    "output_names",
    "parse_targets",
    "target_from_json",
]

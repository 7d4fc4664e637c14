"""Targets of a table: each column read as the kind that the user gives, or as binary."""

from __future__ import annotations

import numpy as np

from mmcuda.data.columns import Column, is_numeric, read_texts
from mmcuda.data.problems import Problem
from mmcuda.data.sheet import Sheet
from mmcuda.targets import KINDS, Binary, Target, TargetSpec, parse_targets
from mmcuda.targets.base import Values
from mmcuda.targets.binary import WORDS
from mmcuda.targets.classes import MOST_CLASSES

STRAY = 0.1  # share of the cells that may be mistakes in a column of 0 and 1; with more, it is of another kind


def read_targets(
    sheet: Sheet, spec: TargetSpec, problems: list[Problem]
) -> tuple[dict[str, Values], dict[str, Target]]:
    """Return the values of every target, [N], and the targets that are not binary; bad cells have no label.

    Args:
        sheet: the table.
        spec: the columns, with or without kinds.
        problems: where to say what is wrong.
    """
    values: dict[str, Values] = {}
    kinds: dict[str, Target] = {}
    for name, given in parse_targets(spec).items():
        column = Column(sheet, name, problems)
        if given is None and (proposal := _propose(column)):
            column.fail(proposal)
            values[name] = np.full(len(sheet), np.nan, np.float32)
            continue
        kind, order = given or (Binary.kind, ())
        target, values[name] = KINDS[kind].read(column, order)
        if kind != Binary.kind:
            kinds[name] = target
    return values, kinds


def _propose(column: Column) -> str | None:
    """Return what a column without a kind could be, unless it is one of 0 and 1."""
    texts = read_texts(column.sheet, column.name)[0]
    known = texts[texts != ""]
    stray = ~known.str.casefold().isin(WORDS)
    if known[stray].nunique() < 2 or stray.mean() <= STRAY:
        return None
    different = sorted(set(known))
    shown = ", ".join(different[:3]) + (", ..." if len(different) > 3 else "")
    numeric, few = is_numeric(texts), len(different) <= MOST_CLASSES
    fitting = [
        kind for kind, fits in (("continuous", numeric), ("ordinal", numeric and few), ("multiclass", few)) if fits
    ]
    others = f" (or {', '.join(fitting[1:])})" if len(fitting) > 1 else ""
    advice = f"; say which kind it is: --data.targets '{{{column.name}: {fitting[0]}}}'{others}" if fitting else ""
    return f"is not of 0 and 1 but of {len(different)} different values ({shown}){advice}"

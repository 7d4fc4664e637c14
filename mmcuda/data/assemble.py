"""From the cells of a sheet and the roles of its columns to the one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmcuda.data.clinical import read_clinical
from mmcuda.data.columns import Words, read_names, read_sides, read_subgroups, read_tabular, read_words
from mmcuda.data.config import DataConfig
from mmcuda.data.problems import Problem
from mmcuda.data.rules import Spec, parse_rules
from mmcuda.data.sheet import Sheet
from mmcuda.data.split import given_split, patients_on_two_sides
from mmcuda.data.table import CohortTable, ImageSource
from mmcuda.data.target_columns import read_targets
from mmcuda.errors import UserError
from mmcuda.targets import TargetSpec, parse_targets

T = TypeVar("T")
REQUIRED = {
    "file": "the table of the images",
    "root": "the folder of the data set",
    "image": "the column of the image paths",
    "group": "the column of the patients, each of whom a split keeps on one side",
}


@dataclass(frozen=True)
class Roles:
    """Which column is what."""

    image: str
    group: str
    bag: str | None
    clinical: Spec
    targets: TargetSpec
    tabular: tuple[str, ...]
    text: tuple[str, ...]
    subgroups: tuple[str, ...]
    split: str | None

    @classmethod
    def of(cls, config: DataConfig, **given: Any) -> Roles:
        """Return the roles that the options name; ``given`` ones take their place."""
        return cls(**{item.name: given.get(item.name, getattr(config, item.name)) for item in fields(cls)})


def assemble(
    sheet: Sheet,
    roles: Roles,
    open_images: Callable[[Words], ImageSource],
    name: str,
    title: str,
    statement: str,
    notes: tuple[str, ...] = (),
) -> tuple[CohortTable, list[Problem]]:
    """Return the table of a sheet and everything that is wrong with its cells; a bad cell counts as missing.

    Args:
        sheet: a row an image.
        roles: which column is what.
        open_images: makes the image source from the cells of the image column.
        name: of the source, as on the command line.
        title: the cohort's name in a report.
        statement: the honest limits of the data.
        notes: what else the user should know.

    Raises:
        UserError: if a column is missing, naming all that are.
    """
    columns: dict[str, tuple[str, ...]] = {
        "image": (roles.image,),
        "group": (roles.group,),
        "bag": (roles.bag,) if roles.bag else (),
        "split": (roles.split,) if roles.split else (),
        "targets": tuple(parse_targets(roles.targets)),
        **{role: getattr(roles, role) for role in ("tabular", "text", "subgroups")},
    }
    others = {column for role, named in columns.items() if role != "subgroups" for column in named}
    sheet.check_columns(columns | {"clinical": tuple(parse_rules(roles.clinical) or ())})
    problems: list[Problem] = []

    def keep(result: tuple[T, list[Problem]]) -> T:
        """Note the problems of one column and return its values."""
        problems.extend(result[1])
        return result[0]

    names = keep(read_names(sheet, roles.image))
    patients = keep(read_names(sheet, roles.group))
    labels, faults, inferred = read_clinical(sheet, roles.clinical, others)
    problems += faults
    problems += _repeated_images(sheet, roles.image, names, patients)
    problems += [
        Problem("warning", sheet.where_all(column), "is a clinical label and a target: pretraining sees it")
        for column in columns["targets"]
        if column in labels
    ]
    split = keep(read_sides(sheet, roles.split)) if roles.split else None
    if split is not None:
        problems += _split_problems(sheet, patients, split)
    tabular = [keep(read_tabular(sheet, column)) for column in roles.tabular]
    targets, kinds = read_targets(sheet, roles.targets, problems)
    table = CohortTable(
        name=name,
        title=title,
        statement=statement,
        images=open_images(names),
        image_names=names,
        row_numbers=sheet.row_numbers,
        patients=patients,
        bags=_bags(patients, read_words(sheet, roles.bag) if roles.bag else np.full(len(sheet), "")),
        clinical=labels,
        targets=targets,
        kinds=kinds,
        tabular={name: values for columns in tabular for name, values in columns.items()},
        text={column: read_words(sheet, column) for column in roles.text},
        subgroups={column: read_subgroups(sheet, column) for column in roles.subgroups},
        split=split,
        notes=(*inferred, *notes),
    )
    return table, problems


def _bags(patients: Words, bags: Words) -> npt.NDArray[np.int64]:
    """Number the bags; bags of the same name of two patients are two."""
    pairs = pd.DataFrame({"patient": patients, "bag": bags})
    return np.asarray(pairs.groupby(["patient", "bag"]).ngroup(), dtype=np.int64)


def _repeated_images(sheet: Sheet, column: str, names: Words, patients: Words) -> list[Problem]:
    """Return an error for every image that an earlier row of another patient has, and a warning for all others."""
    first: dict[str, int] = {}
    problems = []
    repeated: list[tuple[int, str]] = []  # row, what is repeated there
    for row, name in enumerate(names.tolist()):
        earlier = first.setdefault(name, row)
        if earlier == row or not name:
            continue
        message = f"{name} is also in row {sheet.row_numbers[earlier]}"
        if patients[earlier] != patients[row]:
            problems.append(Problem("error", sheet.where(row, column), f"{message}, of another patient"))
        else:
            repeated.append((row, message))
    if repeated:
        row, message = repeated[0]
        more = f"; {len(repeated) - 1:,} more rows repeat an image" if len(repeated) > 1 else ""
        problems.append(Problem("warning", sheet.where(row, column), message + more))
    return problems


def _split_problems(sheet: Sheet, patients: Words, sides: Words) -> list[Problem]:
    split = given_split(sides)
    problems = [
        Problem("error", sheet.name, f"the split leaves no row for {side}")
        for side in ("train", "test")
        if len(split.sides[side]) == 0
    ]
    for patient, (side, other) in patients_on_two_sides(patients, split).items():
        problems.append(Problem("error", "", f"patient {patient} is in {side} and in {other}"))
    return problems


def require(config: DataConfig, option: str) -> Any:
    """Return the value of an option of ``config``.

    Raises:
        UserError: if it is not given.
    """
    value = getattr(config, option)
    if value is None:
        raise UserError(f"--data.{option} is required for --data {config.source}: {REQUIRED[option]}")
    return value

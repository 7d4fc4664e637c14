"""Which cohort, and how its table is read. The text below a field is its help on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mmcuda.data.rules import parse_rules
from mmcuda.errors import UserError
from mmcuda.targets import parse_targets

Names = tuple[str, ...]
Policy = Literal["positive", "negative", "missing"]

EVERY_SOURCE = {"source", "image_size", "test_fraction", "cache_dir"}
COLUMNS = {"bag", "clinical", "targets", "tabular", "text", "subgroups", "split", "channels", "root"}
OPTIONS_OF_SOURCE = {
    "lidc": EVERY_SOURCE,
    "table": EVERY_SOURCE | COLUMNS | {"file", "image", "group"},
    "olives": EVERY_SOURCE | COLUMNS,
    "mimic-cxr": EVERY_SOURCE | COLUMNS | {"views", "uncertain", "blank"},
}


@dataclass(frozen=True)
class DataConfig:
    """Which cohort, how its table is read, and how it is split."""

    source: Literal["lidc", "table", "olives", "mimic-cxr"] = "lidc"
    """Cohort to load: lidc comes with a package, table is a table of your own images, olives and mimic-cxr are folders
    in the layout of these data sets."""
    file: Path | None = None
    """Table of the images, one row an image, with column names in its first row: .csv, .tsv, .parquet or .xlsx."""
    root: Path | None = None
    """Folder that the image paths start from, by default the table's; of olives and mimic-cxr the data set's folder."""
    image: str | None = None
    """Column of the image paths."""
    group: str | None = None
    """Column of the patients: every split keeps a patient's images together."""
    bag: str | None = None
    """Column of the eye, lesion or study, by which predictions are pooled; by default the patient."""
    clinical: dict[str, Any] | Names | str | None = None
    """Clinical labels, as a column: rule each, such as '{bcva: equal, cst: {within: 25}}'. Rules: equal, category,
    {within: tolerance}, {rbf: sigma}, {bins: number}, {quantiles: number}, each also with a weight in the loss:
    {within: 25, weight: 2}. A list of columns, or auto for all others, infers the rules and prints them."""
    targets: dict[str, Any] | tuple[str | dict[str, Any], ...] | str | None = None
    """Target columns, each alone or with its kind, such as '[fluid, {thickness: continuous}, {grade: ordinal}]'. Kinds:
    binary (0 and 1, true and false, or yes and no; that of a column alone), multiclass, ordinal (numbers, or words in
    the order of {ordinal: [mild, severe]}), continuous; empty is unlabelled. Of olives also b1-b6 or all."""
    tabular: Names = ()
    """Columns of numbers or categories beside the image."""
    text: Names = ()
    """Columns of free text beside the image."""
    subgroups: Names = ()
    """Columns by whose values results are broken down; numbers are cut at their quartiles."""
    split: str | None = None
    """Column with train, validation or test; by default patients are drawn. Of mimic-cxr official (its default) or
    patients."""
    channels: Literal[1, 3] | None = None
    """1 reads images as grey, 3 as colour; by default as the first image is."""
    views: Names = ("PA", "AP")
    """View positions to keep (mimic-cxr)."""
    uncertain: Policy = "missing"
    """What a label of -1, uncertain, counts as (mimic-cxr)."""
    blank: Policy = "negative"
    """What a blank label, not mentioned in the report, counts as (mimic-cxr)."""
    image_size: int = 64
    """Side of the images, in pixels."""
    test_fraction: float = 0.3
    """Fraction of the patients in the test set, where the split is drawn."""
    cache_dir: Path | None = None
    """Folder for decoded images; a per-user cache folder by default."""

    def __post_init__(self) -> None:
        if self.image_size < 8:
            raise UserError(f"--data.image_size must be at least 8, got {self.image_size}")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"--data.test_fraction must be between 0 and 1, got {self.test_fraction:g}")
        parse_rules(self.clinical)
        parse_targets(self.targets)
        for option in fields(self):
            if getattr(self, option.name) != option.default and option.name not in OPTIONS_OF_SOURCE[self.source]:
                fitting = ", ".join(name for name, options in OPTIONS_OF_SOURCE.items() if option.name in options)
                raise UserError(f"--data.{option.name} has no meaning for --data {self.source}, only for {fitting}")
        for name in ("file", "root"):  # a saved configuration is valid from every folder
            path: Path | None = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, path.expanduser().absolute())


@dataclass(frozen=True)
class BatchConfig:
    """The batches of the pretraining that a cohort is checked for."""

    batch_size: int = 64
    """Images per step, among which positives of a clinical label are counted."""

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise UserError(f"--pretrain.batch_size must be at least 2, got {self.batch_size}")


@dataclass(frozen=True)
class CheckConfig:
    """The check of a cohort."""

    data: DataConfig = field(default_factory=DataConfig)
    pretrain: BatchConfig = field(default_factory=BatchConfig)


@dataclass(frozen=True)
class CacheConfig:
    """The cohort whose images are decoded."""

    data: DataConfig = field(default_factory=DataConfig)

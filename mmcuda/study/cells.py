"""Cells, the unit of a study's work: one arm at one label fraction with one seed, and the file it ends in."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mmcuda.data.cohort import Cohort
from mmcuda.errors import UserError
from mmcuda.evaluate.bootstrap import mean_of_draws
from mmcuda.evaluate.metrics import Floats
from mmcuda.evaluate.rows import MEAN, Key, primary_scores
from mmcuda.evaluate.tables import ClassifierScores, Tables, score_tables
from mmcuda.evaluate.threshold import Rule
from mmcuda.report.wording import percent
from mmcuda.study.arms import parse_arm
from mmcuda.study.config import StudyConfig
from mmcuda.targets import KINDS
from mmcuda.train.config import PretrainJob
from mmcuda.train.folder import write_arrays

CELLS = "cells"  # folder of their scores, in a study's folder


@dataclass(frozen=True)
class Cell:
    """One arm at one label fraction with one seed."""

    arm: str
    fraction: float
    seed: int

    def __str__(self) -> str:
        return f"{self.arm} at {percent(self.fraction)}, seed {self.seed}"

    def file(self, folder: Path, suffix: str = ".npz") -> Path:
        """Return the cell's file in a folder of such files."""
        return folder / quote(self.arm, safe=" ") / f"{self.fraction!r}-seed{self.seed}{suffix}"


@dataclass(frozen=True)
class CellScores:
    """What a cell ends in."""

    tables: Tables  # rows by image (one a target, and one for their mean), by bag and patient, by subgroup
    names: tuple[str, ...]  # of the T targets
    scores: Floats  # [T, 1 + R] primary metrics of the test images and of their resamples, the same ones in every cell
    predictions: Floats  # [draws, n_test, outputs]

    @property
    def headline(self) -> float | None:
        """The primary metric's mean over the targets of the first kind; None where it is undefined."""
        row = next(row for row in self.tables.metrics if row["target"] == MEAN)
        value = row[KINDS[str(row["kind"])].primary()]
        return None if value is None else float(value)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = np.array(json.dumps(vars(self.tables)))
        write_arrays(
            path,
            {"tables": tables, "names": np.array(self.names), "scores": self.scores, "predictions": self.predictions},
        )

    @classmethod
    def read(cls, path: Path) -> CellScores:
        """Read the file.

        Raises:
            UserError: if it is damaged.
        """
        try:
            with np.load(path) as arrays:
                tables = Tables(**json.loads(str(arrays["tables"])))
                return cls(tables, tuple(map(str, arrays["names"])), arrays["scores"], arrays["predictions"])
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be read: {error}. Delete it and continue with --resume.") from error


def score_cell(
    cell: Cell, cohort: Cohort, classifiers: Sequence[ClassifierScores], weights: Floats, rule: Rule
) -> CellScores:
    """Score a cell's classifiers, one a draw of the labelled patients, on the test images.

    Args:
        cell: names the rows.
        cohort: its targets and test images.
        classifiers: with their predictions.
        weights: [1 + R, n_test] of ``bootstrap_weights``.
        rule: how thresholds are chosen.
    """
    key: Key = {"arm": cell.arm, "label_fraction": cell.fraction, "seed": cell.seed}
    tested = cohort.target_matrix[cohort.test]
    predictions = np.stack([classifier.test for classifier in classifiers])
    scores = mean_of_draws(np.stack([primary_scores(cohort.kinds, draw, tested, weights) for draw in predictions]))
    return CellScores(score_tables(key, cohort, classifiers, weights, rule), tuple(cohort.kinds), scores, predictions)


@dataclass(frozen=True)
class Task:
    """An encoder, and the cells that are read off it: done by one process, one after the other."""

    encoder: PretrainJob
    cells: tuple[Cell, ...]

    @property
    def from_scratch(self) -> bool:
        """Whether all its cells train from scratch, so that no encoder is pretrained."""
        return all(parse_arm(cell.arm).readout.from_scratch for cell in self.cells)


def all_cells(config: StudyConfig) -> list[Cell]:
    """Return every cell of a study, seed by seed."""
    fractions = config.evaluate.label_fractions
    return [Cell(arm, fraction, seed) for seed in config.all_seeds for arm in config.arms for fraction in fractions]


def missing_cells(config: StudyConfig, root: Path) -> list[Cell]:
    """Return the cells of a study that are not in its folder yet."""
    return [cell for cell in all_cells(config) if not cell.file(root / CELLS).exists()]


def name_tasks(config: StudyConfig, cells: Iterable[Cell]) -> dict[str, Task]:
    """Return the work on ``cells`` by name: what reads the same encoder is one task, as is each cell from scratch."""
    tasks: dict[str, Task] = {}
    for cell in cells:
        job = encoder_job(config, cell)
        name = str(cell) if parse_arm(cell.arm).readout.from_scratch else job.name
        tasks[name] = Task(job, (*(tasks[name].cells if name in tasks else ()), cell))
    return tasks


def encoder_job(config: StudyConfig, cell: Cell) -> PretrainJob:
    """Return the pretraining of the encoder that a cell reads."""
    arm = parse_arm(cell.arm)
    shared = config.methods[arm.method.shares_options_with().name]
    options = {option.name: getattr(shared, option.name) for option in fields(shared)}
    method = arm.method(**options | ({} if arm.label is None else {"labels": (arm.label,)}))
    start = config.start == "weights"
    return PretrainJob(
        method=method,
        seed=cell.seed,
        data=config.data,
        encoder=config.encoder if start or method.weights == "required" else config.encoder.from_scratch(),
        augment=config.augment,
        pretrain=config.pretrain,
    )

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
from mmcuda.data.split import Split
from mmcuda.errors import UserError
from mmcuda.evaluate.bootstrap import mean_of_draws
from mmcuda.evaluate.metrics import Floats, auroc_of_targets
from mmcuda.evaluate.rows import Key, Row
from mmcuda.evaluate.tables import ClassifierScores, score_images, target_matrix
from mmcuda.evaluate.threshold import Rule
from mmcuda.report.wording import percent
from mmcuda.study.arms import parse_arm
from mmcuda.study.config import StudyConfig
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

    rows: list[Row]  # one a target, and one for their mean
    aurocs: Floats  # [T, 1 + R] of the test images and of their resamples, the same ones in every cell
    probabilities: Floats  # [draws, n_test, T]

    @property
    def mean_auroc(self) -> float | None:
        """The mean over the targets; None where it is undefined."""
        value = self.rows[-1]["auroc"]
        return None if value is None else float(value)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.array(json.dumps(self.rows))
        write_arrays(path, {"rows": rows, "aurocs": self.aurocs, "probabilities": self.probabilities})

    @classmethod
    def read(cls, path: Path) -> CellScores:
        """Read the file.

        Raises:
            UserError: if it is damaged.
        """
        try:
            with np.load(path) as arrays:
                return cls(json.loads(str(arrays["rows"])), arrays["aurocs"], arrays["probabilities"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be read: {error}. Delete it and continue with --resume.") from error


def score_cell(
    cell: Cell, cohort: Cohort, split: Split, classifiers: Sequence[ClassifierScores], weights: Floats, rule: Rule
) -> CellScores:
    """Score a cell's classifiers, one a draw of the labelled patients, on the test images.

    Args:
        cell: names the rows.
        cohort: its targets.
        split: its test images.
        classifiers: with their probabilities.
        weights: [1 + R, n_test] of ``bootstrap_weights``.
        rule: how thresholds are chosen.
    """
    key: Key = {"arm": cell.arm, "label_fraction": cell.fraction, "seed": cell.seed}
    tested = target_matrix(cohort)[split.test]
    probabilities = np.stack([classifier.test for classifier in classifiers])
    aurocs = mean_of_draws(np.stack([auroc_of_targets(draw, tested, weights) for draw in probabilities]))
    return CellScores(score_images(key, cohort, split, classifiers, weights, rule), aurocs, probabilities)


@dataclass(frozen=True)
class Task:
    """An encoder, and the cells that are read off it: done by one process, one after the other."""

    encoder: PretrainJob
    cells: tuple[Cell, ...]


def all_cells(config: StudyConfig) -> list[Cell]:
    """Return every cell of a study, seed by seed."""
    fractions = config.evaluate.label_fractions
    return [Cell(arm, fraction, seed) for seed in config.all_seeds for arm in config.arms for fraction in fractions]


def make_tasks(config: StudyConfig, cells: Iterable[Cell]) -> list[Task]:
    """Return the work on ``cells``: what reads the same encoder is one task, as is each training from scratch."""
    tasks: dict[str, Task] = {}
    for cell in cells:
        job = encoder_job(config, cell)
        name = str(cell) if parse_arm(cell.arm).readout.from_scratch else job.name
        tasks[name] = Task(job, (*(tasks[name].cells if name in tasks else ()), cell))
    return list(tasks.values())


def encoder_job(config: StudyConfig, cell: Cell) -> PretrainJob:
    """Return the pretraining of the encoder that a cell reads; it begins with random weights unless it is weights."""
    arm = parse_arm(cell.arm)
    shared = config.methods[arm.method.shares_options_with().name]
    options = {option.name: getattr(shared, option.name) for option in fields(shared)}
    method = arm.method(**options | ({} if arm.label is None else {"labels": (arm.label,)}))
    return PretrainJob(
        method=method,
        seed=cell.seed,
        data=config.data,
        encoder=config.encoder if method.weights == "required" else config.encoder.from_scratch(),
        augment=config.augment,
        pretrain=config.pretrain,
    )

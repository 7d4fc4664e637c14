"""The work on a task: its encoder is pretrained, then each of its cells is computed and written."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

import numpy as np
from accelerate import Accelerator
from torch import nn

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices
from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.features import Features, extract_features, to_device
from mmcuda.evaluate.label_efficiency import label_draws, score_probe
from mmcuda.evaluate.tables import ClassifierScores
from mmcuda.models.storage import load_encoder
from mmcuda.study.arms import parse_arm
from mmcuda.study.cells import CELLS, Cell, CellScores, Task, score_cell
from mmcuda.study.clinical_input import clinical_columns
from mmcuda.study.config import StudyConfig
from mmcuda.train.config import PretrainJob
from mmcuda.train.finetune import finetune, predict
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import RunFolder, write_text
from mmcuda.train.pretrain import first_encoder, pretrain

FAILED = "failed"  # folder of the tracebacks


@dataclass(frozen=True)
class CellReport:
    """What became of a cell."""

    cell: Cell
    seconds: float  # with the pretraining, for the first cell that reads an encoder
    score: float | None = None  # the primary metric's mean over targets; None where it is undefined
    error: str | None = None  # None if all went well


class Worker:
    """Does tasks one after the other.

    Args:
        config: of the study, its arms spelt out.
        folder: of the run.
        accelerator: device and precision; with several ranks all of them pretrain together, and one computes cells.
        cohort: images, labels and split.
    """

    def __init__(self, config: StudyConfig, folder: RunFolder, accelerator: Accelerator, cohort: Cohort) -> None:
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.cohort = cohort
        self.weights = bootstrap_weights(cohort.patients[cohort.test], config.evaluate.bootstrap)

    def pretrain(self, task: Task) -> None:
        """Pretrain the encoder of a task, unless it is finished or the task reads none."""
        if not task.from_scratch:
            pretrain(self.accelerator, self.folder, task.encoder, self.cohort)

    def do(self, task: Task) -> Iterator[CellReport]:
        """Compute the cells of a task, each written as soon as it is there. What fails is told; the rest goes on."""
        started = time.perf_counter()
        features: Features | None = None
        try:
            if self.accelerator.num_processes == 1:  # several ranks have pretrained before
                self.pretrain(task)
            if any(parse_arm(cell.arm).readout.trains is None for cell in task.cells):
                encoder = to_device(self._encoder(task.encoder, from_scratch=False), self.accelerator.device)
                features = extract_features(encoder, self.cohort.images, np.arange(len(self.cohort.images)))
        except Exception as error:
            yield from [self._failed(cell, started, error) for cell in task.cells]
            return
        for cell in task.cells:
            try:
                scores = self._compute(cell, task.encoder, features)
                scores.write(cell.file(self.folder.root / CELLS))
                yield CellReport(cell, time.perf_counter() - started, scores.headline)
            except Exception as error:
                yield self._failed(cell, started, error)
            started = time.perf_counter()

    def _failed(self, cell: Cell, started: float, error: Exception) -> CellReport:
        write_text(cell.file(self.folder.root / FAILED, ".txt"), "".join(traceback.format_exception(error)))
        return CellReport(cell, time.perf_counter() - started, error=f"{type(error).__name__}: {error}")

    def _compute(self, cell: Cell, job: PretrainJob, features: Features | None) -> CellScores:
        options = self.config.evaluate
        draws = label_draws(self.cohort, cell.fraction, options.draws, cell.seed)
        if features is None or parse_arm(cell.arm).readout.trains:
            classifiers = [self._train(cell, job, number, draw) for number, draw in enumerate(draws)]
        else:
            classifiers = [self._probe(cell, features, draw) for draw in draws]
        return score_cell(cell, self.cohort, classifiers, self.weights, options.threshold)

    def _probe(self, cell: Cell, features: Features, labelled: Indices) -> ClassifierScores:
        if parse_arm(cell.arm).readout.adds_values:
            columns = clinical_columns(self.cohort.clinical, self.cohort.train)
            features = np.concatenate([features, columns], axis=1)
        return score_probe(features, self.cohort, labelled)

    def _train(self, cell: Cell, job: PretrainJob, draw: int, labelled: Indices) -> ClassifierScores:
        """Train encoder and classifier on the labelled images alone; only the scores and the log are kept."""
        readout = parse_arm(cell.arm).readout
        options: FinetuneConfig = getattr(self.config, str(readout.trains))
        name = f"{quote(cell.arm, safe=' ')}-{cell.fraction!r}-seed{cell.seed}-draw{draw}"
        held_out = self.cohort.validation
        model = finetune(
            self.accelerator,
            self.folder,
            replace(options, seed=cell.seed, label_fraction=cell.fraction),
            self._encoder(job, readout.from_scratch),
            job,
            self.cohort,
            labelled,
            validation=held_out if len(held_out) else None,
            name=name,
        )
        test = predict(model, self.cohort, self.cohort.test)
        choosing = predict(model, self.cohort, held_out) if len(held_out) else test[:0]  # of thresholds
        shutil.rmtree(self.folder.checkpoint(name).parent)
        return ClassifierScores(labelled, test, held_out, choosing)

    def _encoder(self, job: PretrainJob, from_scratch: bool) -> nn.Module:
        return first_encoder(job, self.cohort) if from_scratch else load_encoder(self.folder.checkpoint(job.name))

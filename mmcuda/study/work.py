"""The work on a task: its encoder is pretrained, then each of its cells is computed and written."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mmcuda.data.split import Indices
from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.features import Features, extract_features
from mmcuda.evaluate.label_efficiency import label_draws, score_probe
from mmcuda.evaluate.tables import ClassifierScores, target_matrix
from mmcuda.models.storage import load_encoder
from mmcuda.study.arms import parse_arm
from mmcuda.study.cells import CELLS, Cell, CellScores, Task, score_cell
from mmcuda.study.clinical_input import clinical_columns
from mmcuda.study.config import StudyConfig
from mmcuda.train.config import PretrainJob
from mmcuda.train.finetune import finetune, predict
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import RunFolder, write_text
from mmcuda.train.loop import make_accelerator
from mmcuda.train.pretrain import first_encoder, pretrain
from mmcuda.train.run import load_split_cohort, to_device

FAILED = "failed"  # folder of the tracebacks


@dataclass(frozen=True)
class Report:
    """What became of a cell."""

    cell: Cell
    seconds: float  # with the pretraining, for the first cell that reads an encoder
    auroc: float | None = None  # the mean over targets; None where it is undefined
    error: str | None = None  # None if all went well


def begin(config: StudyConfig, root: Path) -> Callable[[Task], Iterator[Report]]:
    """Return what does tasks of a study, in this process."""
    return Worker(config, root).do


class Worker:
    """Does tasks one after the other. The cohort is loaded once."""

    def __init__(self, config: StudyConfig, root: Path) -> None:
        self.config, self.root, self.folder = config, root, RunFolder(root)
        self.accelerator = make_accelerator(config.pretrain.precision)
        self.cohort, self.split = load_split_cohort(config.data)
        self.weights = bootstrap_weights(self.cohort.patients[self.split.test], config.evaluate.bootstrap)

    def do(self, task: Task) -> Iterator[Report]:
        """Compute the cells of a task, each written as soon as it is there. What fails is told; the rest goes on."""
        started = time.perf_counter()
        features: Features | None = None
        try:
            if not all(parse_arm(cell.arm).readout.from_scratch for cell in task.cells):
                features = self._features(task.encoder)
        except Exception as error:
            yield from [self._failed(cell, started, error) for cell in task.cells]
            return
        for cell in task.cells:
            try:
                scores = self._compute(cell, task.encoder, features)
                scores.write(cell.file(self.root / CELLS))
                yield Report(cell, time.perf_counter() - started, scores.mean_auroc)
            except Exception as error:
                yield self._failed(cell, started, error)
            started = time.perf_counter()

    def _failed(self, cell: Cell, started: float, error: Exception) -> Report:
        write_text(cell.file(self.root / FAILED, ".txt"), "".join(traceback.format_exception(error)))
        return Report(cell, time.perf_counter() - started, error=f"{type(error).__name__}: {error}")

    def _features(self, job: PretrainJob) -> Features:
        """Pretrain the encoder, or find it pretrained; return its features of all images."""
        pretrain(self.accelerator, self.folder, job, self.cohort, self.split)
        encoder = to_device(load_encoder(self.folder.checkpoint(job.name)), self.accelerator.device)
        return extract_features(encoder, self.cohort.images, np.arange(len(self.cohort.images)))

    def _compute(self, cell: Cell, job: PretrainJob, features: Features | None) -> CellScores:
        options = self.config.evaluate
        draws = label_draws(self.cohort, self.split, cell.fraction, options.draws, cell.seed)
        if parse_arm(cell.arm).readout.trains:
            classifiers = [self._train(cell, job, number, draw) for number, draw in enumerate(draws)]
        elif features is None:
            raise ValueError(f"{cell} reads features, got none")
        else:
            classifiers = [self._probe(cell, features, draw) for draw in draws]
        return score_cell(cell, self.cohort, self.split, classifiers, self.weights, options.threshold)

    def _probe(self, cell: Cell, features: Features, labelled: Indices) -> ClassifierScores:
        if parse_arm(cell.arm).readout.adds_values:
            columns = clinical_columns(self.cohort.clinical, self.split.train)
            features = np.concatenate([features, columns], axis=1)
        return score_probe(features, target_matrix(self.cohort), self.cohort.patients, self.split, labelled)

    def _train(self, cell: Cell, job: PretrainJob, draw: int, labelled: Indices) -> ClassifierScores:
        """Train encoder and classifier on the labelled images alone; only the scores and the log are kept."""
        readout = parse_arm(cell.arm).readout
        options: FinetuneConfig = getattr(self.config, str(readout.trains))
        encoder = (
            first_encoder(job, self.cohort) if readout.from_scratch else load_encoder(self.folder.checkpoint(job.name))
        )
        name = f"{quote(cell.arm, safe=' ')}-{cell.fraction!r}-seed{cell.seed}-draw{draw}"
        held_out = self.split.validation
        model = finetune(
            self.accelerator,
            self.folder,
            replace(options, seed=cell.seed, label_fraction=cell.fraction),
            encoder,
            job,
            self.cohort,
            labelled,
            validation=held_out if len(held_out) else None,
            name=name,
        )
        test = predict(model, self.cohort, self.split.test)
        choosing = predict(model, self.cohort, held_out) if len(held_out) else test[:0]  # of thresholds
        shutil.rmtree(self.folder.checkpoint(name).parent)
        return ClassifierScores(labelled, test, held_out, choosing)

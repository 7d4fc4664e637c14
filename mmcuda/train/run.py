"""The whole flow: pretrain, probe, report, in one folder."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from mmcuda.data.check import load_checked
from mmcuda.data.check.summary import summarise_table
from mmcuda.data.cohort import Cohort
from mmcuda.data.config import DataConfig
from mmcuda.data.split import Split
from mmcuda.errors import UserError
from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.label_efficiency import EncoderScores, score_encoder
from mmcuda.evaluate.rows import Row
from mmcuda.models.description import read_description
from mmcuda.models.encoder import check_encoder
from mmcuda.models.storage import load_encoder
from mmcuda.report import findings, write_report
from mmcuda.report.results import Results
from mmcuda.train.checkpoint import load_data, load_pretraining
from mmcuda.train.config import EvaluateConfig, TrainConfig
from mmcuda.train.config_file import check_same, load_config, save_config
from mmcuda.train.folder import RunFolder, write_arrays, write_json
from mmcuda.train.loop import make_accelerator
from mmcuda.train.pretrain import pretrain
from mmcuda.train.score_files import ScoreFiles
from mmcuda.train.screen import LABEL, data_lines, probe_table
from mmcuda.train.summary import choose_samples, describe_environment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def open_folder(
    out: Path, config: DataclassInstance, resume: bool, accelerator: Accelerator, may_differ: Collection[str] = ()
) -> RunFolder:
    """Open a run folder for ``config``: a new one, or one of the same configuration to continue.

    Options named in ``may_differ`` may change when a run is continued; the folder then has their new values.

    Raises:
        UserError: if the folder holds files and ``resume`` is false, cannot be written, or holds another configuration.
    """
    folder = RunFolder(out)
    if accelerator.is_main_process:
        folder.open(resume)
        if folder.config.exists():
            check_same(folder.config, load_config(type(config), folder.config), config, may_differ)
        if may_differ or not folder.config.exists():
            save_config(config, folder.config)
    accelerator.wait_for_everyone()
    return folder


def load_split_cohort(data: DataConfig, needs_targets: bool = True) -> tuple[Cohort, Split]:
    """Load the cohort that ``data`` describes, with the split that its table gives, or one drawn by patient.

    Raises:
        UserError: as :func:`mmcuda.data.check.load_checked`, or if the cohort has no target though ``needs_targets``.
    """
    cohort, split = load_checked(data)
    if needs_targets and not cohort.targets:
        raise UserError(f"{cohort.title} has no targets to predict: name their columns with --data.targets")
    return cohort, split


def load_cohort_for(place: Path, data: DataConfig | None = None, needs_targets: bool = True) -> tuple[Cohort, Split]:
    """Load the cohort of a checkpoint, or another one with as many channels, and its split.

    Raises:
        UserError: as :func:`load_split_cohort`, or if the encoder takes another number of channels.
    """
    cohort, split = load_split_cohort(data or load_data(place), needs_targets)
    channels = read_description(place).channels
    if len(channels) != len(cohort.channel_names):
        raise UserError(
            f"the encoder takes {len(channels)} channels ({', '.join(channels)}), the images of {cohort.title} have "
            f"{len(cohort.channel_names)} ({', '.join(cohort.channel_names)}): choose with --data.channels"
        )
    return cohort, split


def score_checkpoint(
    checkpoint: Path, cohort: Cohort, split: Split, options: EvaluateConfig, device: torch.device
) -> EncoderScores:
    """Probe a checkpoint's encoder at every label fraction."""
    job = load_pretraining(checkpoint)
    return score_encoder(
        to_device(load_encoder(checkpoint), device),
        cohort,
        split,
        pretraining=job.method.name,
        seed=job.seed,
        label_fractions=options.label_fractions,
        draws=options.draws,
        bootstrap=options.bootstrap,
        threshold=options.threshold,
    )


def to_device(encoder: nn.Module, device: torch.device) -> nn.Module:
    """Return the encoder on ``device``, in the memory format that convolutions are fastest in."""
    return encoder.to(device).to(memory_format=torch.channels_last)


class TrainRun:
    """One `mmcuda train`: what its stages share."""

    def __init__(self, config: TrainConfig, out: Path, resume: bool, command: str) -> None:
        self.config, self.command = config, command
        self.accelerator = make_accelerator(config.pretrain.precision)
        check_encoder(config.encoder.name, config.encoder.pretrained, config.data.image_size, config.encoder.weights)
        self.cohort, self.split = load_split_cohort(config.data)
        self.folder = open_folder(out, config, resume, self.accelerator)  # last: a refused run leaves no folder
        environment = self.folder.root / "environment.json"
        self.seconds = {"pretrain": 0.0, "evaluate": 0.0}  # over all continuations of the run
        if environment.exists():
            earlier = json.loads(environment.read_text())
            self.command = earlier["command"]  # the one that began the run reproduces it
            self.seconds.update(earlier["seconds"])

    def run(self) -> None:
        """Pretrain every encoder, score it, report; only the first process scores and reports."""
        summary = summarise_table(self.cohort.table, self.split, self.config.pretrain.batch_size)
        main = self.accelerator.is_main_process
        if main:
            print(data_lines(summary, self.config.pretrain.batch_size), flush=True)
            write_json(self.folder.root / "cohort.json", summary)
            write_arrays(self.folder.root / "samples.npz", choose_samples(self.cohort, self.split))
        for job in self.config.jobs():
            with self._timed("pretrain"):
                pretrain(self.accelerator, self.folder, job, self.cohort, self.split)
        if main:
            results = self._score()
            self._write_embedding(results.tables.metrics)
            print(probe_table(results.tables.metrics))
            print(*findings(self.folder.root), sep="\n")
            print(f"{'report':<{LABEL}}{write_report(self.folder.root)}", flush=True)

    def _score(self) -> ScoreFiles:
        results = ScoreFiles.load(self.folder)
        for job in self.config.jobs():
            if not results.has(job.method.name, job.seed):
                with self._timed("evaluate"):
                    checkpoint = self.folder.checkpoint(job.name)
                    scores = score_checkpoint(
                        checkpoint, self.cohort, self.split, self.config.evaluate, self.accelerator.device
                    )
                    results.add(scores, job.method.name, job.seed)
                    results.save(self.folder, self.cohort, self.split)
        return results

    def _write_embedding(self, rows_of_metrics: list[Row]) -> None:
        """Write the test images' features by the encoder that the report is about, with its name."""
        rows, jobs = self.split.test, self.config.jobs()
        name = Results(pd.DataFrame(rows_of_metrics)).subject
        job = next(job for job in jobs if job.method.name == name)
        encoder = load_encoder(self.folder.checkpoint(job.name))
        features = extract_features(to_device(encoder, self.accelerator.device), self.cohort.images, rows)
        whose = {"encoder": np.array(name), "seed": np.array(job.seed), "features": features}
        write_arrays(self.folder.root / "embedding.npz", describe_rows(self.cohort, rows) | whose)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Add the time inside to the stage's seconds in environment.json."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started
            if self.accelerator.is_main_process:
                environment = describe_environment(self.command, self.accelerator.device, self.seconds)
                write_json(self.folder.root / "environment.json", environment)


def describe_rows(cohort: Cohort, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return patients, clinical labels and targets of the images at ``rows``, as named arrays."""
    clinical = {f"clinical.{name}": label.values[rows] for name, label in cohort.clinical.items()}
    targets = {f"target.{name}": values[rows] for name, values in cohort.targets.items()}
    return {"patients": cohort.patients[rows]} | clinical | targets

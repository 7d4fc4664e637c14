"""Checkpoints: a folder with weights, what the model is, the training's state and options, replaced as a whole."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcuda.data.cohort import Cohort
from mmcuda.data.config import EVERY_SOURCE, DataConfig
from mmcuda.errors import UserError
from mmcuda.models.description import DESCRIPTION, ModelDescription
from mmcuda.models.encoder import timm_statistics
from mmcuda.models.storage import WEIGHTS, find_checkpoint, read_weights, save_weights
from mmcuda.targets import Targets
from mmcuda.train.config import PretrainJob
from mmcuda.train.config_file import load_config, read_tree, save_config, tree_of
from mmcuda.train.finetune_config import FinetuneJob
from mmcuda.train.folder import write_json

STATE, CONFIG = "state.pt", "config.yaml"


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name and the training's state: epoch (finished epochs), optimizer, schedule, scaler."""

    weights: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, job: PretrainJob | FinetuneJob, description: ModelDescription
) -> None:
    """Write a checkpoint beside ``folder``, then swap it in: killed at any moment, a whole one remains."""
    recover(folder)
    new, old = _beside(folder, "new"), _beside(folder, "old")
    new.mkdir(parents=True)
    save_weights(new, checkpoint.weights)
    torch.save(checkpoint.state, new / STATE)
    save_config(job, new / CONFIG)
    write_json(new / DESCRIPTION, description.as_json())
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Undo what a killed ``save_checkpoint`` may have left: the last whole checkpoint is at ``folder`` again."""
    new, old = _beside(folder, "new"), _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, on the CPU.

    Raises:
        UserError: if there is none in ``folder``, or it is damaged.
    """
    for name in (WEIGHTS, STATE, CONFIG, DESCRIPTION):
        if not (folder / name).is_file():
            raise UserError(f"no checkpoint in {folder}: {name} is missing")
    try:
        return Checkpoint(read_weights(folder), torch.load(folder / STATE, weights_only=True))
    except (RuntimeError, EOFError) as error:
        raise UserError(f"the checkpoint in {folder} is damaged: {error}") from None


def _load_job(folder: Path) -> PretrainJob | FinetuneJob:
    path = folder / CONFIG
    if "finetune" in read_tree(path):
        return load_config(FinetuneJob, path)
    return load_config(PretrainJob, path)


def load_pretraining(folder: Path) -> PretrainJob:
    """Return the pretraining of a checkpoint's encoder, fine-tuned since or not."""
    job = _load_job(folder)
    return job.pretraining if isinstance(job, FinetuneJob) else job


def load_data(folder: Path) -> DataConfig:
    """Return the data that a checkpoint was trained on last: those of its classifier, if it has one."""
    job = _load_job(folder)
    return (job.finetune.data or job.pretraining.data) if isinstance(job, FinetuneJob) else job.data


def data_defaults(checkpoint: Path, other_source: bool) -> dict[str, Any]:
    """Return the options of a checkpoint's data as YAML holds them; for another source, those that every source has."""
    data = load_data(find_checkpoint(checkpoint))
    kept = EVERY_SOURCE - {"source"} if other_source else {item.name for item in fields(data)}
    return {name: value for name, value in tree_of(data).items() if name in kept}


def describe_model(job: PretrainJob, cohort: Cohort, targets: Targets | None = None) -> ModelDescription:
    """Describe the encoder of ``job`` for images like the cohort's, and its classifier of ``targets`` if it has one."""
    channels = cohort.channel_names
    mean, std = timm_statistics(job.encoder.name, len(channels)) if job.start.starts_trained else ((), ())
    return ModelDescription(
        architecture=job.encoder.name,
        image_size=cohort.images.shape[2],
        channels=channels,
        reader=cohort.table.images.version,
        mean=mean,
        std=std,
        targets=dict(targets or {}),
    )

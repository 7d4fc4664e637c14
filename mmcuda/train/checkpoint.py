"""Checkpoints: a folder with weights, the training's state and the configuration, replaced as a whole."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcuda.errors import UserError
from mmcuda.models.encoder import build_encoder, check_encoder, normalise_inputs
from mmcuda.train.config import PretrainJob
from mmcuda.train.config_file import load_config, save_config
from mmcuda.train.finetune_config import FinetuneJob

WEIGHTS, STATE, CONFIG = "model.safetensors", "state.pt", "config.yaml"


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name and the training's state: epoch (finished epochs), optimizer, schedule, scaler."""

    weights: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, job: PretrainJob | FinetuneJob) -> None:
    """Write a checkpoint beside ``folder``, then swap it in: killed at any moment, a whole one remains."""
    recover(folder)
    new, old = _beside(folder, "new"), _beside(folder, "old")
    new.mkdir(parents=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}, new / WEIGHTS)
    torch.save(checkpoint.state, new / STATE)
    save_config(job, new / CONFIG)
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
    for name in (WEIGHTS, STATE, CONFIG):
        if not (folder / name).is_file():
            raise UserError(f"no checkpoint in {folder}: {name} is missing")
    try:
        return Checkpoint(load_file(folder / WEIGHTS), torch.load(folder / STATE, weights_only=True))
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise UserError(f"the checkpoint in {folder} is damaged: {error}") from None


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint folder that a user means by ``path``: the folder itself, or its ``best`` or ``last``.

    Raises:
        UserError: if there is no checkpoint in any of them.
    """
    for folder in (path, path / "best", path / "last"):
        if (folder / WEIGHTS).is_file():
            return folder
    raise UserError(f"no checkpoint at {path}: expected a folder with {WEIGHTS}, as under checkpoints/ in a run")


def load_pretraining(folder: Path) -> PretrainJob:
    """Return the pretraining of a checkpoint's encoder, fine-tuned since or not."""
    path = folder / CONFIG
    if path.is_file() and re.search("^finetune:", path.read_text(), flags=re.MULTILINE):
        return load_config(FinetuneJob, path).pretraining
    return load_config(PretrainJob, path)


def load_encoder(folder: Path, in_channels: int) -> tuple[nn.Module, PretrainJob]:
    """Build the encoder that a checkpoint's configuration names, with the checkpoint's weights, in eval mode.

    Raises:
        UserError: if the weights do not fit that encoder.
    """
    job = load_pretraining(folder)
    weights = load_checkpoint(folder).weights
    check_encoder(job.encoder.name, False, job.data.image_size)
    encoder = build_encoder(job.encoder.name, in_channels, job.data.image_size)
    if job.start.starts_trained:
        normalise_inputs(encoder, in_channels)
    prefix = "encoder."
    found = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    load_weights(encoder, found, f"{folder} for the encoder {job.encoder.name}")
    return encoder.eval(), job


def load_weights(model: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Load ``weights`` into ``model``.

    Raises:
        UserError: naming the first tensor that is missing, unknown, or of another shape.
    """
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        have = list(weights[name].shape) if name in weights else "none"
        want = list(wanted[name].shape) if name in wanted else "none"
        if have != want:
            raise UserError(f"the weights in {what} do not fit: {name} must be {want}, got {have}")
    model.load_state_dict(weights)

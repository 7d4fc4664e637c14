"""A model in a folder: its weights (safetensors) and what it is (JSON). Checkpoints hold it, and so do exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcuda.errors import UserError
from mmcuda.models.description import read_description
from mmcuda.models.heads import Classifier

WEIGHTS = "model.safetensors"


def save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write ``weights`` into ``folder``."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of the model in ``folder``, on the CPU.

    Raises:
        UserError: if they are damaged.
    """
    try:
        return load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"the checkpoint in {folder} is damaged: {error}") from None


def find_checkpoint(path: Path) -> Path:
    """Return the folder of the model that a user means by ``path``.

    That is the folder itself, or its ``best`` or ``last``, or the one training in a run's folder.

    Raises:
        UserError: if there is none, or a run has several.
    """
    for folder in (path, path / "best", path / "last"):
        if (folder / WEIGHTS).is_file():
            return folder
    trainings = sorted({weights.parents[1] for weights in path.glob(f"checkpoints/*/*/{WEIGHTS}")})
    if len(trainings) == 1:
        return find_checkpoint(trainings[0])
    if trainings:
        raise UserError(f"{path} holds {len(trainings)} checkpoints: name one of them, such as {trainings[0]}")
    raise UserError(f"no checkpoint at {path}: expected a folder with {WEIGHTS}, as under checkpoints/ in a run")


def load_encoder(folder: Path) -> nn.Module:
    """Return the encoder of the model in ``folder``, a checkpoint or an export, in eval mode.

    Raises:
        UserError: if there is none, or its weights do not fit its description.
    """
    description = read_description(folder)
    encoder = description.build_encoder()
    what = f"{folder} for the encoder {description.architecture}"
    load_weights(encoder, part_of_weights(read_weights(folder), "encoder."), what)
    return encoder.eval()


def load_classifier(folder: Path) -> Classifier:
    """Return the classifier in ``folder``, a checkpoint or an export, in eval mode.

    Raises:
        UserError: if there is none, or its weights do not fit its description.
    """
    description = read_description(folder)
    if not description.targets:
        raise UserError(f"the model in {folder} is an encoder without a classifier: train one with mmcuda finetune")
    classifier = Classifier(load_encoder(folder), description.targets)
    what = f"{folder} for its {len(description.targets)} targets"
    load_weights(classifier.linear, part_of_weights(read_weights(folder), "linear."), what)
    return classifier.eval()


def part_of_weights(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights of the submodule whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


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

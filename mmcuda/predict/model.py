"""A trained model with its preprocessing, loaded from a checkpoint or an export."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mmcuda.errors import UserError
from mmcuda.models.description import ModelDescription, read_description
from mmcuda.models.heads import Classifier, feature_size
from mmcuda.models.storage import find_checkpoint, load_classifier, load_encoder
from mmcuda.predict.images import Images, image_batches
from mmcuda.targets import activate_all, output_names

Floats = npt.NDArray[np.float32]


class Model:
    """A trained encoder, with a classifier if it was fine-tuned, and how its images are prepared.

    ``images`` are, in both methods, a file or a sequence of them, read as the model's training images were; or
    [N, C, H, W], an array, a tensor or a sequence of [C, H, W]: uint8 of any size, or floating in 0..1 and of the
    model's size.

    Attributes:
        description: architecture, image size, channels, targets.
        module: the classifier, images [B, C, S, S] in 0..1 to logits [B, L]; without targets the encoder, to [B, F].
        targets: by name, each of its kind; empty if the model has no classifier.
        thresholds: for each target the probability from which it counts as positive, where one was chosen.
    """

    def __init__(self, description: ModelDescription, module: nn.Module) -> None:
        self.description, self.module = description, module.eval()
        self.targets, self.thresholds = description.targets, description.thresholds

    @property
    def encoder(self) -> nn.Module:
        """The encoder, images [B, C, S, S] in 0..1 to features [B, F]."""
        return self.module.encoder if isinstance(self.module, Classifier) else self.module

    @property
    def outputs(self) -> list[str]:
        """Names of the columns of ``predict``."""
        return output_names(self.targets)

    def predict(self, images: Images, batch_size: int = 64) -> Floats:
        """Return the predictions of the targets, [N, outputs], in the columns ``outputs``.

        They are the probability of a positive (binary), that of each class (multiclass, ordinal), or a number
        (continuous).

        Raises:
            TypeError, ValueError: if ``images`` have another type, shape or range.
            UserError: if the model has no classifier, or a file cannot be read.
        """
        if not self.targets:
            raise UserError("the model is an encoder without a classifier: train one with mmcuda finetune")
        size = sum(target.logits for target in self.targets.values())
        logits = self._outputs(self.module, size, images, batch_size)
        return activate_all(self.targets, logits).astype(np.float32)

    def embed(self, images: Images, batch_size: int = 64) -> Floats:
        """Return the features of the encoder, [N, F].

        Raises:
            TypeError, ValueError, UserError: as ``predict``.
        """
        return self._outputs(self.encoder, feature_size(self.encoder), images, batch_size)

    @torch.inference_mode()
    def _outputs(self, module: nn.Module, size: int, images: Images, batch_size: int) -> Floats:
        """Return what ``module`` gives for the images, [N, size]."""
        device = next(module.parameters()).device
        outputs = [np.empty((0, size), np.float32)]
        for batch in image_batches(images, self.description, batch_size):
            outputs.append(module(batch.to(device)).cpu().numpy())
        return np.concatenate(outputs)

    def __repr__(self) -> str:
        what = ", ".join(self.targets) or "no classifier"
        size = self.description.image_size
        return f"Model({self.description.architecture}, {len(self.description.channels)} x {size} x {size}: {what})"


def load(path: str | os.PathLike[str], device: str | torch.device | None = None) -> Model:
    """Load a model from a checkpoint or an export.

    Args:
        path: a checkpoint, a run's folder with a single training, or what ``mmcuda export`` wrote as safetensors.
        device: where to run; by default the GPU if there is one.

    Raises:
        UserError: if there is no model at ``path``, or it is damaged.
    """
    folder = find_checkpoint(Path(path))
    description = read_description(folder)
    module = load_classifier(folder) if description.targets else load_encoder(folder)
    return Model(description, module.to(device or ("cuda" if torch.cuda.is_available() else "cpu")))

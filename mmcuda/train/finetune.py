"""Supervised training of a pretrained encoder: a linear probe on frozen features, or all weights."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from scipy.special import expit
from torch import Tensor, nn

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices
from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.label_efficiency import target_matrix
from mmcuda.evaluate.metrics import Floats
from mmcuda.evaluate.probe import fit_probe
from mmcuda.models.heads import Classifier, masked_bce
from mmcuda.train.batches import Batch, TrainingSet
from mmcuda.train.checkpoint import Checkpoint, save_checkpoint
from mmcuda.train.config import FinetuneConfig, PretrainJob
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import Trainer, Training
from mmcuda.train.seeding import derive_seed


def finetune(
    accelerator: Accelerator,
    folder: RunFolder,
    options: FinetuneConfig,
    encoder: nn.Module,
    job: PretrainJob,
    cohort: Cohort,
    labelled: Indices,
) -> nn.Module:
    """Train a classifier of the cohort's targets on the labelled images; its checkpoint is then in the run folder.

    Args:
        accelerator: device, ranks and precision.
        folder: where logs and checkpoint go.
        options: how to train.
        encoder: pretrained; with mode full it is trained in place.
        job: the pretraining that the encoder comes from.
        cohort: images and targets.
        labelled: indices of the images whose targets may be seen.

    Returns:
        The classifier, in eval mode, on the accelerator's device.
    """
    name = f"finetune-{options.mode}-seed{options.seed}"
    torch.manual_seed(derive_seed(options.seed, "classifier"))
    model = Classifier(encoder.to(accelerator.device), len(cohort.targets)).to(accelerator.device)
    targets = target_matrix(cohort)[labelled]
    if options.mode == "linear":
        probe = fit_probe(extract_features(encoder, cohort.images, labelled), targets)
        with torch.no_grad():
            model.linear.weight.copy_(torch.from_numpy(probe.weight))
            model.linear.bias.copy_(torch.from_numpy(probe.bias))
        if accelerator.is_main_process:
            save_checkpoint(folder.checkpoint(name), Checkpoint(model.state_dict(), {"seed": options.seed}), job)
    else:
        training = Training(name, "finetune  full      ", options.seed, options.epochs, options, job)
        data = TrainingSet(cohort.images, labelled, {"targets": torch.from_numpy(targets)})

        def loss_of_batch(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            images = job.augment(batch.images.float() / 255, generator)
            return masked_bce(model(images).float(), batch.labels["targets"])

        Trainer(accelerator, folder, training, model, data).fit(loss_of_batch)
    return model.eval()


def predict(model: nn.Module, cohort: Cohort, rows: Indices) -> Floats:
    """Return the probabilities of the targets, [n, T], for the images at ``rows`` [n]."""
    logits = extract_features(model, cohort.images, rows).astype(np.float64)
    return np.asarray(expit(logits))

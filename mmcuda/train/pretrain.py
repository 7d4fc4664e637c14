"""Pretraining of an encoder by any method."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from mmcuda.data.cohort import Cohort
from mmcuda.models.encoder import build_encoder
from mmcuda.train.checkpoint import describe_model
from mmcuda.train.config import PretrainJob
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import Trainer, Training
from mmcuda.train.seeding import derive_seed


def pretrain(accelerator: Accelerator, folder: RunFolder, job: PretrainJob, cohort: Cohort) -> None:
    """Train the encoder of ``job`` on the training images; its checkpoint is then in the run folder.

    A training that has a checkpoint continues from it; one that is finished is left as it is. Encoders that are not
    pretrained here have a checkpoint too.

    Raises:
        UserError: if the cohort lacks what the method needs.
        RuntimeError: if the loss is not finite.
    """
    method = job.method
    method.check(cohort)
    model = method.build(first_encoder(job, cohort), cohort)
    training = Training(
        name=job.name,
        title=f"pretrain  {' '.join([method.name, *method.label_names]):<10}",
        seed=job.seed,
        epochs=job.pretrain.epochs if method.trains else 0,
        options=job.pretrain,
        job=job,
        description=describe_model(job, cohort),
    )
    data = method.training_set(cohort, job.augment, job.seed)
    Trainer(accelerator, folder, training, model, data).fit(method.loss, method.after_step)


def first_encoder(job: PretrainJob, cohort: Cohort) -> nn.Module:
    """Return the encoder that the job starts from: one seed gives all methods the same random weights."""
    torch.manual_seed(derive_seed(job.seed, "weights"))
    channels, size = cohort.images.shape[1:3]
    return build_encoder(job.encoder.name, channels, size, job.start.pretrained, job.start.weights)

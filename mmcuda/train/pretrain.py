"""Contrastive pretraining of an encoder: with clinical labels, without labels, with shuffled labels, or not at all."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Split
from mmcuda.losses import ClinicalSupConLoss, SupConLoss
from mmcuda.models.encoder import build_encoder
from mmcuda.models.heads import ContrastiveModel
from mmcuda.train.batches import Batch, TrainingSet
from mmcuda.train.config import PretrainJob
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import LossOfBatch, Trainer, Training
from mmcuda.train.ranks import gather_ranks
from mmcuda.train.seeding import derive_seed


def pretrain(accelerator: Accelerator, folder: RunFolder, job: PretrainJob, cohort: Cohort, split: Split) -> None:
    """Train the encoder of ``job`` on the training images; its checkpoint is then in the run folder.

    A training that has a checkpoint continues from it; one that is finished is left as it is. The untrained encoder
    (method random) has a checkpoint too.

    Raises:
        RuntimeError: if the loss is not finite.
    """
    torch.manual_seed(derive_seed(job.seed, "weights"))  # one seed gives all methods the same first weights
    channels, size = cohort.images.shape[1:3]
    encoder = build_encoder(job.encoder.name, channels, size, job.encoder.pretrained)
    model = ContrastiveModel(encoder, job.pretrain.projection_hidden, job.pretrain.projection_size)
    training = Training(
        name=job.name,
        title=f"pretrain  {job.method:<10}",
        seed=job.seed,
        epochs=0 if job.method == "random" else job.pretrain.epochs,
        options=job.pretrain,
        job=job,
    )
    data = TrainingSet(cohort.images, split.train, contrastive_labels(job, cohort, split))
    Trainer(accelerator, folder, training, model, data).fit(contrastive_loss(job, cohort))


def contrastive_labels(job: PretrainJob, cohort: Cohort, split: Split) -> dict[str, Tensor]:
    """Return the clinical labels that ``job`` learns from, name -> [n_train] float64, NaN = missing.

    The shuffled control permutes whole rows across the training images: each image then has the labels of another one,
    so their distribution and their correlation stay and their relation to the image goes.
    """
    if job.method in ("simclr", "random"):
        return {}
    rows = split.train
    if job.method == "shuffled":
        rows = np.random.default_rng(derive_seed(job.seed, "shuffle")).permutation(rows)
    return {name: torch.from_numpy(label.values[rows]) for name, label in cohort.clinical.items()}


def contrastive_loss(job: PretrainJob, cohort: Cohort) -> LossOfBatch:
    """Return the loss of a batch: two augmented views of every image, compared with all others of all ranks."""
    tau, tau_simclr = job.pretrain.temperature, job.pretrain.simclr_temperature
    clinical = ClinicalSupConLoss(
        {name: label.relation for name, label in cohort.clinical.items()},
        weights={name: label.weight for name, label in cohort.clinical.items()},
        temperature=tau,
        base_temperature=tau,
    )
    unlabelled = SupConLoss(temperature=tau_simclr, base_temperature=tau_simclr)

    def loss_of_batch(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        images = batch.images.float() / 255
        views = torch.stack([job.augment(images, generator), job.augment(images, generator)], dim=1)
        features = gather_ranks(model(views).float())
        if not features.isfinite().all():
            return features.sum()  # not finite either: the loop stops there and says so
        labels = {name: gather_ranks(label) for name, label in batch.labels.items()}
        loss: Tensor = clinical(features, labels) if labels else unlabelled(features)
        return loss

    return loss_of_batch

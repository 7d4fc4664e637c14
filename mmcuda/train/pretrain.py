"""Contrastive pretraining of an encoder: with clinical labels, without labels, with shuffled labels, or not at all."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Split
from mmcuda.data.table import ClinicalLabel
from mmcuda.errors import UserError, did_you_mean
from mmcuda.losses import ClinicalSupConLoss, SupConLoss
from mmcuda.models.encoder import build_encoder
from mmcuda.models.heads import ContrastiveModel
from mmcuda.train.batches import Batch, TrainingSet
from mmcuda.train.checkpoint import describe_model
from mmcuda.train.config import PretrainJob
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import LossOfBatch, Trainer, Training
from mmcuda.train.ranks import gather_ranks
from mmcuda.train.seeding import derive_seed

CONTRASTIVE = ("simclr", "shuffled", "clinical")  # the methods that train; the others are encoders as they are


def pretrain(accelerator: Accelerator, folder: RunFolder, job: PretrainJob, cohort: Cohort, split: Split) -> None:
    """Train the encoder of ``job`` on the training images; its checkpoint is then in the run folder.

    A training that has a checkpoint continues from it; one that is finished is left as it is. Encoders that are not
    pretrained here (methods random and imagenet) have a checkpoint too.

    Raises:
        UserError: if the cohort lacks the clinical labels that the job learns from.
        RuntimeError: if the loss is not finite.
    """
    check_labels(job, cohort)
    encoder = first_encoder(job, cohort)
    model = ContrastiveModel(encoder, job.pretrain.projection_hidden, job.pretrain.projection_size)
    training = Training(
        name=job.name,
        title=f"pretrain  {' '.join([job.method, *job.labels]):<10}",
        seed=job.seed,
        epochs=job.pretrain.epochs if job.method in CONTRASTIVE else 0,
        options=job.pretrain,
        job=job,
        description=describe_model(job, cohort),
    )
    data = training_set(job, cohort, split)
    Trainer(accelerator, folder, training, model, data).fit(contrastive_loss(job, cohort))


def first_encoder(job: PretrainJob, cohort: Cohort) -> nn.Module:
    """Return the encoder that the job starts from: one seed gives all methods the same random weights."""
    torch.manual_seed(derive_seed(job.seed, "weights"))
    channels, size = cohort.images.shape[1:3]
    return build_encoder(job.encoder.name, channels, size, job.start.pretrained, job.start.weights)


def check_labels(job: PretrainJob, cohort: Cohort) -> None:
    """Raise a UserError unless the cohort has the clinical labels that the job learns from."""
    known = list(cohort.clinical)
    if job.method in ("clinical", "shuffled") and not known:
        raise UserError(f"{job.method} pretraining needs clinical labels, got none: name some with --data.clinical")
    for option, names in {"labels": job.labels, "pretrain.balance": job.pretrain.balance}.items():
        for name in names:
            if name not in known:
                raise UserError(f"--{option} must be among {', '.join(known)}, got {name}{did_you_mean(name, known)}")


def learnt_labels(job: PretrainJob, cohort: Cohort) -> dict[str, ClinicalLabel]:
    """Return the clinical labels whose positives ``job`` brings together; none where it learns without labels."""
    if job.method not in ("clinical", "shuffled"):
        return {}
    return {name: label for name, label in cohort.clinical.items() if not job.labels or name in job.labels}


def contrastive_labels(job: PretrainJob, cohort: Cohort, split: Split) -> dict[str, Tensor]:
    """Return the values of the labels that ``job`` learns from, name -> [n_train] float64, NaN = missing.

    The shuffled control permutes whole rows across the training images: each image then has the labels of another one,
    so their distribution and their correlation stay and their relation to the image goes.
    """
    rows = split.train
    if job.method == "shuffled":
        rows = np.random.default_rng(derive_seed(job.seed, "shuffle")).permutation(rows)
    return {name: torch.from_numpy(label.values[rows]) for name, label in learnt_labels(job, cohort).items()}


def training_set(job: PretrainJob, cohort: Cohort, split: Split) -> TrainingSet:
    """Return the training images, two views each, in batches as the job's sampler makes them."""
    learnt = learnt_labels(job, cohort)
    balance = {}
    if job.pretrain.sampler == "class_aware":
        chosen = [name for name in job.pretrain.balance if name in learnt] or list(learnt)
        balance = {name: learnt[name].relation.tolerance for name in chosen}
    labels = contrastive_labels(job, cohort, split)
    return TrainingSet(cohort.images, split.train, labels, job.augment, views=2, balance=balance)


def contrastive_loss(job: PretrainJob, cohort: Cohort) -> LossOfBatch:
    """Return the loss of a batch: the views of every image, compared with those of all others of all ranks."""
    tau, tau_simclr = job.pretrain.temperature, job.pretrain.simclr_temperature
    unlabelled = SupConLoss(temperature=tau_simclr, base_temperature=tau_simclr)
    clinical = None
    if learnt := learnt_labels(job, cohort):
        clinical = ClinicalSupConLoss(
            {name: label.relation for name, label in learnt.items()},
            weights={name: label.weight for name, label in learnt.items()},
            temperature=tau,
            base_temperature=tau,
        )

    def loss_of_batch(model: nn.Module, batch: Batch) -> Tensor:
        features = gather_ranks(model(batch.views).float())
        if not features.isfinite().all():
            return features.sum()  # not finite either: the loop stops there and says so
        labels = {name: gather_ranks(label) for name, label in batch.labels.items()}
        loss: Tensor = clinical(features, labels) if clinical else unlabelled(features)
        return loss

    return loss_of_batch

"""Supervised training of a classifier on a pretrained encoder: frozen probe, all weights, or one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices, split_by_patient
from mmcuda.errors import UserError
from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.metrics import Floats
from mmcuda.evaluate.probe import fit_probe
from mmcuda.evaluate.rows import Truth
from mmcuda.models.heads import Classifier
from mmcuda.targets import activate_all, output_columns
from mmcuda.train.batches import Batch, TrainingSet
from mmcuda.train.checkpoint import describe_model
from mmcuda.train.config import PretrainJob
from mmcuda.train.early_stopping import EarlyStopping
from mmcuda.train.finetune_config import FinetuneConfig, FinetuneJob
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import Trainer, Training
from mmcuda.train.seeding import derive_seed
from mmcuda.train.target_loss import TargetLoss


def finetune(
    accelerator: Accelerator,
    folder: RunFolder,
    options: FinetuneConfig,
    encoder: nn.Module,
    job: PretrainJob,
    cohort: Cohort,
    labelled: Indices,
    validation: Indices | None = None,
    name: str | None = None,
) -> Classifier:
    """Train a classifier of the cohort's targets on the labelled images; its checkpoint is then in the run folder.

    A training that has a checkpoint continues from it; one that is finished is only loaded.

    Args:
        accelerator: device, ranks and precision.
        folder: where logs and checkpoint go.
        options: how to train.
        encoder: pretrained, or not for training from scratch; trained in place unless the mode keeps it frozen.
        job: the pretraining that the encoder comes from; its augmentation is used here, too.
        cohort: images and targets.
        labelled: indices of the images whose targets may be seen.
        validation: indices of the images that early stopping validates on; by default a part of the labelled patients,
            which is then not trained on.
        name: of logs and checkpoint; by default the mode and the seed.

    Returns:
        The classifier of the targets that differ among the training images, in eval mode, on the
        accelerator's device.

    Raises:
        UserError: if the labels of no target differ, or early stopping finds no patient or no label to validate on.
    """
    name = name or options.name
    matrix = cohort.target_matrix
    labelled = labelled[np.isfinite(matrix[labelled]).any(axis=1)]
    if options.patience == 0:
        validation = None
    elif validation is None:
        labelled, validation = hold_out(cohort, labelled, options)
    names = trainable_targets(cohort, labelled)
    matrix = matrix[:, [list(cohort.targets).index(target) for target in names]]
    targets = {n: cohort.kinds[n].fitted(values) for n, values in zip(names, matrix[labelled].T, strict=True)}

    torch.manual_seed(derive_seed(options.seed, "classifier"))
    # From a linear layer that was fitted to the features of eval mode, training goes on with these features.
    from_linear = options.mode == "linear_full"
    model = Classifier(encoder, targets, options.frozen, keep_statistics=from_linear).to(accelerator.device)
    if options.mode in ("logistic", "linear_full") and not folder.checkpoint(name).exists():
        _fit_head(model, cohort, labelled, matrix[labelled], options)
    criterion = TargetLoss(options.loss, options.class_weights, options.focal_gamma, targets, matrix[labelled])

    def loss_of_batch(model: nn.Module, batch: Batch) -> Tensor:
        return criterion(model(batch.inputs["image"][:, 0]).float(), batch.labels["targets"])

    training = Training(
        name=name,
        title=f"finetune  {options.mode:<10}",
        seed=options.seed,
        epochs=0 if options.mode == "logistic" else options.epochs,
        options=options,
        job=FinetuneJob(job, options),
        description=describe_model(job, cohort, targets),
    )
    data = TrainingSet(cohort, labelled, {"targets": torch.from_numpy(matrix[labelled])}, job.augment)
    stopping = early_stopping(criterion, cohort, validation, matrix, options) if validation is not None else None
    Trainer(accelerator, folder, training, model, data, parameter_groups(model, options), stopping).fit(loss_of_batch)
    return model.eval()


def trainable_targets(cohort: Cohort, rows: Indices) -> list[str]:
    """Return the names of the targets with several classes or values at ``rows``: others cannot be learnt.

    Raises:
        UserError: if there is none.
    """
    names = list(cohort.targets)
    learnt = [name for name, target in cohort.kinds.items() if target.can_learn(cohort.targets[name][rows])]
    if not learnt:
        raise UserError(
            f"a target must have several classes or values among the {len(rows)} labelled images, got one each of "
            f"{', '.join(names)}: raise --label_fraction"
        )
    return learnt


def hold_out(cohort: Cohort, labelled: Indices, options: FinetuneConfig) -> tuple[Indices, Indices]:
    """Split the labelled images by patient into those to train on and those that early stopping validates on."""
    patients = cohort.patients[labelled]
    if len(np.unique(patients)) < 2:
        raise UserError(
            f"--patience needs at least 2 labelled patients to hold one out, got {len(np.unique(patients))}: raise "
            "--label_fraction"
        )
    parts = split_by_patient(patients, options.validation_fraction, derive_seed(options.seed, "validation"))
    return labelled[parts.train], labelled[parts.test]


def early_stopping(
    criterion: TargetLoss, cohort: Cohort, validation: Indices, targets: Truth, options: FinetuneConfig
) -> EarlyStopping:
    """Return early stopping by the loss on those of the validation images that have a label; ``targets`` is [N, T]."""
    rows = validation[np.isfinite(targets[validation]).any(axis=1)]
    if len(rows) == 0:
        raise UserError("--patience needs labelled validation images, got none: raise --validation_fraction")

    def loss_of(model: nn.Module) -> float:
        logits = extract_features(model, cohort.images, rows)
        return float(criterion(torch.from_numpy(logits), torch.from_numpy(targets[rows])))

    return EarlyStopping(loss_of, options.patience)


def parameter_groups(model: Classifier, options: FinetuneConfig) -> list[dict[str, Any]]:
    """Return the parameters that learn, each with its highest learning rate.

    The linear layer has its own. The encoder's last layer has that of the options, and each layer below
    ``layer_decay`` times that of the layer above it: the lower, the more general and the less there is to change.
    """
    head: list[dict[str, Any]] = param_groups_weight_decay(model.linear, options.weight_decay)
    groups = [group | {"lr": options.head_learning_rate} for group in head]
    if not options.frozen:
        skip: Callable[[], set[str]] = getattr(model.encoder, "no_weight_decay", set)  # position embeddings and such
        layers = param_groups_layer_decay(model.encoder, options.weight_decay, skip(), layer_decay=options.layer_decay)
        groups += [group | {"lr": options.learning_rate * group["lr_scale"]} for group in layers]
    return groups


def _fit_head(model: Classifier, cohort: Cohort, labelled: Indices, truth: Truth, options: FinetuneConfig) -> None:
    """Set the linear layer by a linear probe of the frozen features."""
    features = extract_features(model.encoder, cohort.images, labelled)
    probe = fit_probe(features, truth, model.targets, balanced=options.class_weights == "balanced")
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(probe.weight))
        model.linear.bias.copy_(torch.from_numpy(probe.bias))


def predict(model: Classifier, cohort: Cohort, rows: Indices) -> Floats:
    """Return the predictions of the cohort's targets, [n, outputs], for the images at ``rows`` [n].

    A target that the classifier was not trained for is NaN.
    """
    logits = extract_features(model, cohort.images, rows).astype(np.float64)
    known, found = output_columns(model.targets), activate_all(model.targets, logits)
    return np.concatenate(
        [
            found[:, known[name]] if name in known else np.full((len(rows), target.outputs), np.nan)
            for name, target in cohort.kinds.items()
        ],
        axis=1,
    )

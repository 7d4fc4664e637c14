"""Cross-validation by patient: every labelled image is predicted by a classifier that never saw its patient."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from accelerate import Accelerator
from torch import nn

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices, Patients
from mmcuda.errors import UserError
from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.metrics import Floats, mean_ignoring_nan
from mmcuda.evaluate.rows import Judged, Key, Row, score_rows
from mmcuda.evaluate.threshold import Rule, choose_thresholds
from mmcuda.targets import output_columns, output_names
from mmcuda.train.config import PretrainJob
from mmcuda.train.finetune import finetune, predict
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import RunFolder

Folds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CrossValidation:
    """The predictions of one classifier a fold. A target that a fold could not train is NaN there."""

    rows: Indices  # [n] the labelled images
    folds: Folds  # [n] the fold of each image, from 1
    predictions: Floats  # [n, outputs] by the classifier of the fold, which was trained on the other folds
    test_predictions: Floats  # [n_test, outputs] mean over the classifiers


def patient_folds(patients: Patients, folds: int, seed: int) -> Folds:
    """Return the fold of each image, [n] in 1..folds; all images of a patient are in one fold.

    Raises:
        UserError: if there are fewer patients than folds.
    """
    from sklearn.model_selection import GroupKFold

    count = len(np.unique(patients))
    if count < folds:
        raise UserError(f"--folds must be at most the number of labelled patients, {count}, got {folds}")
    fold_of = np.zeros(len(patients), np.int64)
    parts = GroupKFold(folds, shuffle=True, random_state=seed).split(patients, groups=patients)
    for number, (_, part) in enumerate(parts, start=1):
        fold_of[part] = number
    return fold_of


def cross_validate(
    accelerator: Accelerator,
    folder: RunFolder,
    options: FinetuneConfig,
    encoder: nn.Module,
    job: PretrainJob,
    cohort: Cohort,
    labelled: Indices,
    fold_of: Folds,
    test: Indices,
    validation: Indices | None = None,
) -> CrossValidation:
    """Fine-tune one classifier a fold, as ``finetune`` does, and predict the images that it did not see.

    Args:
        accelerator, folder, options, job, cohort, labelled, validation: as of ``finetune``.
        encoder: left as it is; every fold begins with a copy.
        fold_of: [n] the fold of each labelled image, from 1, as of ``patient_folds``.
        test: indices of images of yet other patients, predicted by all classifiers.

    Raises:
        UserError: if a fold cannot be trained.
    """
    predictions = np.full((len(labelled), len(output_names(cohort.kinds))), np.nan)
    of_test = []
    for fold in range(1, fold_of.max() + 1):
        inside, name = fold_of == fold, f"{options.name}-fold{fold}"
        start = copy.deepcopy(encoder)
        model = finetune(accelerator, folder, options, start, job, cohort, labelled[~inside], validation, name)
        predictions[inside] = predict(model, cohort, labelled[inside])
        of_test.append(predict(model, cohort, test))
    return CrossValidation(labelled, fold_of, predictions, mean_ignoring_nan(np.stack(of_test), axis=0))


def fold_rows(key: Key, result: CrossValidation, cohort: Cohort, bootstrap: int, rule: Rule) -> list[Row]:
    """Return the metrics of the out-of-fold predictions: of each fold, then of all folds pooled.

    Each fold is decided at thresholds that the predictions of the other folds choose.
    """
    targets = cohort.target_matrix[result.rows]
    thresholds = np.empty(targets.shape)
    for fold in set(result.folds):
        inside = result.folds == fold
        thresholds[inside] = choose_thresholds(cohort.kinds, result.predictions[~inside], targets[~inside], rule)
    rows: list[Row] = []
    for fold in [*range(1, result.folds.max() + 1), "pooled"]:
        scored = np.full(len(targets), True) if fold == "pooled" else result.folds == fold
        trained = [targets[~scored]] if fold != "pooled" else [targets[result.folds != f] for f in set(result.folds)]
        weights = bootstrap_weights(cohort.patients[result.rows[scored]], bootstrap)
        scores = [Judged(result.predictions[scored], thresholds[scored])]
        rows += [
            {"fold": fold} | row for row in score_rows(key, cohort.kinds, scores, targets[scored], trained, weights)
        ]
    return rows


def out_of_fold_table(result: CrossValidation, cohort: Cohort) -> str:
    """Return the out-of-fold predictions as CSV: image, patient, fold, label and predictions of every target."""
    names, patients = cohort.table.image_names[result.rows], cohort.patients[result.rows]
    table = pd.DataFrame({"image": names, "patient": patients, "fold": result.folds})
    columns = output_columns(cohort.kinds)
    for (name, target), values in zip(cohort.kinds.items(), cohort.target_matrix[result.rows].T, strict=True):
        table[f"{name}.label"] = target.written(values)
        for column, scores in zip(target.columns(name), result.predictions[:, columns[name]].T, strict=True):
            table[f"{column}.{'probability' if target.classes else 'prediction'}"] = scores
    return str(table.to_csv(index=False, lineterminator="\n"))

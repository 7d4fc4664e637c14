"""The command finetune: a classifier, or one a fold, on a pretrained encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices
from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.label_efficiency import label_draws
from mmcuda.evaluate.metrics import Floats
from mmcuda.evaluate.probe import out_of_fold
from mmcuda.evaluate.rows import Key
from mmcuda.evaluate.tables import ClassifierScores, score_tables
from mmcuda.evaluate.threshold import choose_thresholds
from mmcuda.models.description import DESCRIPTION, read_description
from mmcuda.models.heads import Classifier
from mmcuda.models.storage import find_checkpoint, load_encoder
from mmcuda.targets import output_names
from mmcuda.train.checkpoint import load_pretraining
from mmcuda.train.cohorts import load_cohort_for
from mmcuda.train.config_file import open_folder
from mmcuda.train.finetune import finetune, hold_out, predict, trainable_targets
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import RunFolder, write_json, write_text
from mmcuda.train.folds import CrossValidation, cross_validate, fold_rows, out_of_fold_table, patient_folds
from mmcuda.train.loop import make_accelerator
from mmcuda.train.result_files import rows_as_csv, write_predictions, write_tables
from mmcuda.train.screen import LABEL, level_lines, metrics_table
from mmcuda.train.seeding import derive_seed


def finetune_command(checkpoint: Path, options: FinetuneConfig, out: Path, resume: bool) -> None:
    """Train a classifier on a pretrained encoder; write its checkpoint, metrics and test probabilities to ``out``.

    With folds there is a checkpoint a fold, the test probabilities are the mean over the folds' classifiers, and the
    out-of-fold predictions (out_of_fold.csv) are scored as well (folds.csv).
    """
    accelerator = make_accelerator(options.precision)
    place = find_checkpoint(checkpoint)
    job = load_pretraining(place)
    cohort = load_cohort_for(place, options.data)
    encoder = load_encoder(place)
    labelled = label_draws(cohort, options.label_fraction, 1, options.seed)[0]
    labelled = labelled[np.isfinite(cohort.target_matrix[labelled]).any(axis=1)]
    learnt = trainable_targets(cohort, labelled)
    fold_of = np.zeros(len(labelled), np.int64)
    if options.folds:
        fold_of = patient_folds(cohort.patients[labelled], options.folds, derive_seed(options.seed, "folds"))
    validation = cohort.validation if len(cohort.validation) else None
    if options.patience and validation is None and not options.folds:
        labelled, validation = hold_out(cohort, labelled, options)

    folder = open_folder(out, options, resume, accelerator)  # last: refused labels leave no folder
    main = accelerator.is_main_process
    if main and (single := [name for name in cohort.targets if name not in learnt]):
        print(f"{'labels':<{LABEL}}{', '.join(single)}: one class among {len(labelled)} labelled images, left out")
    key: Key = {"pretraining": job.method.name, "label_fraction": options.label_fraction, "seed": options.seed}
    setting = (accelerator, folder, options, encoder, job, cohort, labelled)
    if options.folds:
        folds = cross_validate(*setting, fold_of, cohort.test, validation)
        scores = ClassifierScores(labelled, folds.test_predictions, labelled, folds.predictions)
        if main:
            _write_folds(folder, key, folds, cohort, options)
    else:
        model = finetune(*setting, validation)
        held_out = _held_out(model, options, cohort, labelled, validation)
        scores = ClassifierScores(labelled, predict(model, cohort, cohort.test), *held_out)
    if main:
        _write_thresholds(folder, scores, cohort, options)
        _write_scores(folder, key, scores, cohort, options)


def _held_out(
    model: Classifier, options: FinetuneConfig, cohort: Cohort, labelled: Indices, validation: Indices | None
) -> tuple[Indices, Floats]:
    """Return images of patients that the classifier did not see and their probabilities, to choose thresholds on.

    None where training by gradient descent leaves no labelled image out.
    """
    if validation is not None:
        return validation, predict(model, cohort, validation)
    if options.mode == "logistic":
        features = extract_features(model.encoder, cohort.images, labelled)
        balanced = options.class_weights == "balanced"
        return labelled, out_of_fold(
            features, cohort.target_matrix[labelled], cohort.patients[labelled], cohort.kinds, balanced
        )
    return labelled[:0], np.empty((0, len(output_names(cohort.kinds))))


def _write_folds(folder: RunFolder, key: Key, folds: CrossValidation, cohort: Cohort, options: FinetuneConfig) -> None:
    rows = fold_rows(key, folds, cohort, options.bootstrap, options.threshold)
    write_text(folder.root / "folds.csv", rows_as_csv(rows))
    write_text(folder.root / "out_of_fold.csv", out_of_fold_table(folds, cohort))
    print("out-of-fold predictions, all folds pooled")
    print(metrics_table([row for row in rows if row["fold"] == "pooled"]))
    print(f"test images, mean of the {options.folds} classifiers")


def _write_thresholds(folder: RunFolder, scores: ClassifierScores, cohort: Cohort, options: FinetuneConfig) -> None:
    """Let the checkpoints say from which probability a target counts as positive, where that could be chosen."""
    truth = cohort.target_matrix[scores.held_out]
    chosen = choose_thresholds(cohort.kinds, scores.held_out_predictions, truth, options.threshold)
    named = {name: float(value) for name, value in zip(cohort.targets, chosen, strict=True) if np.isfinite(value)}
    for path in folder.root.glob(f"checkpoints/{options.name}*/*/{DESCRIPTION}"):
        description = read_description(path.parent)
        known = {name: value for name, value in named.items() if name in description.targets}
        write_json(path, replace(description, thresholds=known).as_json())


def _write_scores(
    folder: RunFolder, key: Key, scores: ClassifierScores, cohort: Cohort, options: FinetuneConfig
) -> None:
    weights = bootstrap_weights(cohort.patients[cohort.test], options.bootstrap)
    tables = score_tables(key, cohort, [scores], weights, options.threshold)
    name = f"{key['pretraining']}/{options.label_fraction!r}/seed{options.seed}"
    write_predictions(folder.root, cohort, {name: scores.test})
    write_tables(folder.root, tables)
    print(metrics_table(tables.metrics), *level_lines(tables.levels), sep="\n")

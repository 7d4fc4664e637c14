"""The command finetune: a classifier, or one a fold, on a pretrained encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices
from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.label_efficiency import EncoderScores, label_draws
from mmcuda.evaluate.metrics import Floats
from mmcuda.evaluate.probe import out_of_fold
from mmcuda.evaluate.rows import Key
from mmcuda.evaluate.tables import ClassifierScores, score_tables, target_matrix
from mmcuda.models.heads import Classifier
from mmcuda.models.storage import find_checkpoint, load_encoder
from mmcuda.train.checkpoint import load_pretraining
from mmcuda.train.finetune import finetune, hold_out, predict, trainable_targets
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import write_text
from mmcuda.train.folds import cross_validate, fold_rows, out_of_fold_table, patient_folds
from mmcuda.train.loop import make_accelerator
from mmcuda.train.run import load_split_cohort, open_folder
from mmcuda.train.score_files import ScoreFiles, rows_as_csv
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
    cohort, split = load_split_cohort(job.data)
    encoder = load_encoder(place)
    targets = target_matrix(cohort)
    labelled = label_draws(cohort, split, options.label_fraction, 1, options.seed)[0]
    labelled = labelled[np.isfinite(targets[labelled]).any(axis=1)]
    learnt = trainable_targets(cohort, labelled)
    fold_of = np.zeros(len(labelled), np.int64)
    if options.folds:
        fold_of = patient_folds(cohort.patients[labelled], options.folds, derive_seed(options.seed, "folds"))

    folder = open_folder(out, options, resume, accelerator)  # last: refused labels leave no folder
    main = accelerator.is_main_process
    if main and (single := [name for name in cohort.targets if name not in learnt]):
        print(f"{'labels':<{LABEL}}{', '.join(single)}: one class among {len(labelled)} labelled images, left out")
    key: Key = {"pretraining": job.method, "label_fraction": options.label_fraction, "seed": options.seed}
    validation = split.validation if len(split.validation) else None
    if options.folds:
        setting = (accelerator, folder, options, encoder, job, cohort, labelled)
        folds = cross_validate(*setting, fold_of, split.test, validation)
        scores = ClassifierScores(labelled, folds.test_probabilities, labelled, folds.probabilities)
        if main:
            rows = fold_rows(key, folds, cohort, options.bootstrap, options.threshold)
            write_text(folder.root / "folds.csv", rows_as_csv(rows))
            write_text(folder.root / "out_of_fold.csv", out_of_fold_table(folds, cohort))
            print("out-of-fold predictions, all folds pooled")
            print(metrics_table([row for row in rows if row["fold"] == "pooled"]))
            print(f"test images, mean of the {options.folds} classifiers")
    else:
        if options.patience and validation is None:
            labelled, validation = hold_out(cohort, labelled, options)
        model = finetune(accelerator, folder, options, encoder, job, cohort, labelled, validation)
        held_out = _held_out(model, options, cohort, labelled, validation)
        scores = ClassifierScores(labelled, predict(model, cohort, split.test), *held_out)
    if main:
        weights = bootstrap_weights(cohort.patients[split.test], options.bootstrap)
        tables = score_tables(key, cohort, split, [scores], weights, options.threshold)
        results = ScoreFiles()
        results.add(EncoderScores(tables, {options.label_fraction: scores.test}), job.method, options.seed)
        results.save(folder, cohort, split)
        print(metrics_table(tables.metrics), *level_lines(tables.levels), sep="\n")


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
        return labelled, out_of_fold(features, target_matrix(cohort)[labelled], cohort.patients[labelled], balanced)
    return labelled[:0], np.empty((0, len(cohort.targets)))

"""The command finetune: a classifier, or one a fold, on a pretrained encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.label_efficiency import EncoderScores, Key, label_draws, score_rows, target_matrix
from mmcuda.models.storage import find_checkpoint, load_encoder
from mmcuda.train.checkpoint import load_pretraining
from mmcuda.train.finetune import finetune, predict, trainable_targets
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import write_text
from mmcuda.train.folds import cross_validate, fold_rows, out_of_fold_table, patient_folds
from mmcuda.train.loop import make_accelerator
from mmcuda.train.run import load_split_cohort, open_folder
from mmcuda.train.score_files import ScoreFiles, rows_as_csv
from mmcuda.train.screen import LABEL, metrics_table
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
    setting = (accelerator, folder, options, encoder, job, cohort, labelled)
    validation = split.validation if len(split.validation) else None
    if options.folds:
        folds = cross_validate(*setting, fold_of, split.test, validation)
        scores = folds.test_probabilities
        if main:
            rows = fold_rows(key, folds, cohort, options.bootstrap)
            write_text(folder.root / "folds.csv", rows_as_csv(rows))
            write_text(folder.root / "out_of_fold.csv", out_of_fold_table(folds, cohort))
            print("out-of-fold predictions, all folds pooled")
            print(metrics_table([row for row in rows if row["fold"] == "pooled"]))
            print(f"test images, mean of the {options.folds} classifiers")
    else:
        scores = predict(finetune(*setting, validation), cohort, split.test)
    if main:
        weights = bootstrap_weights(cohort.patients[split.test], options.bootstrap)
        rows = score_rows(key, list(cohort.targets), [scores], targets[split.test], [targets[labelled]], weights)
        results = ScoreFiles()
        results.add(EncoderScores(rows, {options.label_fraction: scores}), job.method, options.seed)
        results.save(folder, cohort, split)
        print(metrics_table(rows))

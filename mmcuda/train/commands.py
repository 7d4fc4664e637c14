"""The commands on a single training or checkpoint: pretrain, finetune, evaluate, embed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mmcuda.errors import UserError
from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.label_efficiency import EncoderScores, label_draws, score_rows, target_matrix
from mmcuda.evaluate.metrics import single_class_targets
from mmcuda.models.encoder import check_encoder
from mmcuda.train.checkpoint import CONFIG, find_checkpoint, load_encoder
from mmcuda.train.config import EvaluateConfig, FinetuneConfig, PretrainJob
from mmcuda.train.config_file import load_config
from mmcuda.train.finetune import finetune, predict
from mmcuda.train.folder import new_file, write_arrays, write_json, write_text
from mmcuda.train.loop import make_accelerator
from mmcuda.train.pretrain import pretrain
from mmcuda.train.run import describe_rows, load_split_cohort, open_folder, score_checkpoint, to_device
from mmcuda.train.score_files import ScoreFiles, rows_as_csv
from mmcuda.train.screen import metrics_table

FEATURES = (".npz", ".csv")
ROWS = (".csv", ".json")


def pretrain_command(job: PretrainJob, out: Path, resume: bool) -> None:
    """Pretrain one encoder into ``out``/checkpoints."""
    accelerator = make_accelerator(job.pretrain.precision)
    check_encoder(job.encoder.name, job.start.pretrained, job.data.image_size, job.start.weights)
    cohort, split = load_split_cohort(job.data)
    folder = open_folder(out, job, resume, accelerator)
    pretrain(accelerator, folder, job, cohort, split)
    if accelerator.is_main_process:
        print(f"checkpoint  {folder.checkpoint(job.name)}")


def finetune_command(checkpoint: Path, options: FinetuneConfig, out: Path, resume: bool) -> None:
    """Train a classifier on a pretrained encoder; write its checkpoint, metrics and test probabilities to ``out``."""
    place = find_checkpoint(checkpoint)
    job = load_config(PretrainJob, place / CONFIG)
    accelerator = make_accelerator(options.precision)
    cohort, split = load_split_cohort(job.data)
    encoder, _ = load_encoder(place, cohort.images.shape[1])
    drawn = label_draws(cohort, split, options.label_fraction, 1, options.seed)[0]
    targets = target_matrix(cohort)
    labelled = drawn[np.isfinite(targets[drawn]).any(axis=1)]
    if single := single_class_targets(targets[labelled], list(cohort.targets)):
        raise UserError(
            f"target {', '.join(single)} must have both classes among the {len(labelled)} labelled images, got one: "
            "raise --label_fraction"
        )
    folder = open_folder(out, options, resume, accelerator)  # last: refused labels leave no folder
    classifier = finetune(accelerator, folder, options, encoder, job, cohort, labelled)
    if accelerator.is_main_process:
        scores = predict(classifier, cohort, split.test)
        weights = bootstrap_weights(cohort.patients[split.test], options.bootstrap)
        key = {"pretraining": job.method, "label_fraction": options.label_fraction, "seed": options.seed}
        rows = score_rows(key, list(cohort.targets), [scores], targets[split.test], [targets[labelled]], weights)
        results = ScoreFiles()
        results.add(EncoderScores(rows, {options.label_fraction: scores}), job.method, options.seed)
        results.save(folder, cohort, split)
        print(metrics_table(rows))


def evaluate_command(checkpoint: Path, options: EvaluateConfig, out: Path) -> None:
    """Score a checkpoint's encoder by linear probes; print the rows and write them to ``out`` (.csv or .json)."""
    place, out = find_checkpoint(checkpoint), new_file(out, ROWS)
    cohort, split = load_split_cohort(load_config(PretrainJob, place / CONFIG).data)
    rows = score_checkpoint(place, cohort, split, options, make_accelerator("no").device).rows
    if out.suffix == ".csv":
        write_text(out, rows_as_csv(rows))
    else:
        write_json(out, rows)
    print(metrics_table(rows))


def embed_command(checkpoint: Path, out: Path) -> None:
    """Write the features of every image of the checkpoint's cohort to ``out`` (.npz or .csv)."""
    place, out = find_checkpoint(checkpoint), new_file(out, FEATURES)
    cohort, split = load_split_cohort(load_config(PretrainJob, place / CONFIG).data)
    encoder, _ = load_encoder(place, cohort.images.shape[1])
    rows = np.arange(len(cohort.images))
    features = extract_features(to_device(encoder, make_accelerator("no").device), cohort.images, rows)
    columns = describe_rows(cohort, rows) | {"split": np.where(np.isin(rows, split.test), "test", "train")}
    if out.suffix == ".npz":
        write_arrays(out, columns | {"features": features})
    else:
        table = pd.DataFrame(columns).join(pd.DataFrame(features).add_prefix("feature"))
        write_text(out, table.to_csv(index=False, lineterminator="\n"))
    print(f"features    [{len(features)}, {features.shape[1]}] in {out}")

"""The commands on a single encoder: pretrain, evaluate, embed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mmcuda.data.config import DataConfig
from mmcuda.evaluate.features import extract_features, to_device
from mmcuda.evaluate.label_efficiency import score_encoder
from mmcuda.models.encoder import check_encoder
from mmcuda.models.storage import find_checkpoint, load_encoder
from mmcuda.train.checkpoint import load_pretraining
from mmcuda.train.cohorts import describe_rows, load_cohort_for, load_split_cohort
from mmcuda.train.config import EvaluateConfig, PretrainJob
from mmcuda.train.config_file import open_folder
from mmcuda.train.folder import new_file, write_arrays, write_json, write_text
from mmcuda.train.loop import make_accelerator
from mmcuda.train.pretrain import pretrain
from mmcuda.train.result_files import rows_as_csv
from mmcuda.train.screen import level_lines, metrics_table

FEATURES = (".npz", ".csv")
ROWS = (".csv", ".json")


def pretrain_command(job: PretrainJob, out: Path, resume: bool) -> None:
    """Pretrain one encoder into ``out``/checkpoints."""
    accelerator = make_accelerator(job.pretrain.precision)
    check_encoder(job.encoder.name, job.start.pretrained, job.data.image_size, job.start.weights)
    cohort = load_split_cohort(job.data, needs_targets=False)
    folder = open_folder(out, job, resume, accelerator)
    pretrain(accelerator, folder, job, cohort)
    if accelerator.is_main_process:
        print(f"checkpoint  {folder.checkpoint(job.name)}")


def evaluate_command(checkpoint: Path, options: EvaluateConfig, out: Path, data: DataConfig | None = None) -> None:
    """Score a checkpoint's encoder by linear probes; print the rows and write them to ``out`` (.csv or .json).

    The data are the checkpoint's own where none are given.
    The rows of bags and patients, and of subgroups, are written beside it, to <stem>-levels and <stem>-subgroups.
    """
    place = find_checkpoint(checkpoint)
    outs = [new_file(out.with_stem(f"{out.stem}{part}"), ROWS) for part in ("", "-levels", "-subgroups")]
    cohort = load_cohort_for(place, data)
    job = load_pretraining(place)
    tables = score_encoder(
        to_device(load_encoder(place), make_accelerator("no").device),
        cohort,
        pretraining=job.method.name,
        seed=job.seed,
        label_fractions=options.label_fractions,
        draws=options.draws,
        bootstrap=options.bootstrap,
        threshold=options.threshold,
    ).tables
    for path, rows in zip(outs, vars(tables).values(), strict=True):
        if rows and out.suffix == ".csv":
            write_text(path, rows_as_csv(rows))
        elif rows:
            write_json(path, rows)
    print(metrics_table(tables.metrics), *level_lines(tables.levels), sep="\n")


def embed_command(checkpoint: Path, out: Path, data: DataConfig | None = None) -> None:
    """Write the features of every image of a cohort, by default the checkpoint's own, to ``out`` (.npz or .csv)."""
    place, out = find_checkpoint(checkpoint), new_file(out, FEATURES)
    cohort = load_cohort_for(place, data, needs_targets=False)
    encoder = load_encoder(place)
    rows = np.arange(len(cohort.images))
    features = extract_features(to_device(encoder, make_accelerator("no").device), cohort.images, rows)
    columns = describe_rows(cohort, rows) | {"split": cohort.split.side_of_each(len(rows))}
    if out.suffix == ".npz":
        write_arrays(out, columns | {"features": features})
    else:
        table = pd.DataFrame(columns).join(pd.DataFrame(features).add_prefix("feature"))
        write_text(out, table.to_csv(index=False, lineterminator="\n"))
    print(f"features    [{len(features)}, {features.shape[1]}] in {out}")

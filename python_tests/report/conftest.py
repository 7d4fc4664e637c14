"""A run folder in exactly the layout that a run writes, with made-up numbers that are the same every time."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmcuda.study.arms import parse_arm
from mmcuda.targets import Binary

TARGETS = ("malignancy", "spiculation", "calcification", "internal structure")
SINGLE_CLASS = "internal structure"
CHANNELS = ("outline", "thickness", "coronal")
LEVELS = {"random": 0.585, "simclr": 0.612, "shuffled": 0.600, "clinical": 0.640}
SLOPES = {"random": 0.012, "simclr": 0.016, "shuffled": 0.014, "clinical": 0.020}
FRACTIONS = (0.02, 0.05, 0.25, 1.0)
N_TEST = 240

WriteRun = Callable[..., Path]


def _cohort(title: str) -> dict[str, object]:
    labels = {"subtlety": "equal", "margin": "equal", "lobulation": "equal", "diameter": "within 2"}
    return {
        "name": "lidc",
        "title": title,
        "statement": "Real expert outlines, not CT intensities. Malignancy is an opinion of a reader, not a diagnosis.",
        "images": 6859,
        "patients": 875,
        "bags": 2670,
        "split": {"train": {"images": 4790, "patients": 613}, "test": {"images": 2069, "patients": 262}},
        "leak_check": "passed: no patient on both sides",
        "clinical": {
            name: {
                "relation": relation,
                "weight": 1.0,
                "description": f"{name} as rated by the other readers, "
                + ("millimetres" if name == "diameter" else "1 to 5"),
                "missing": 0.12 + 0.01 * index,
                "positives_per_batch": 71.25 - 11 * index,
            }
            for index, (name, relation) in enumerate(labels.items())
        },
        "targets": {
            name: {
                "train": {"positive": 1200 - 150 * index, "negative": 3100, "unlabelled": 490},
                "test": {
                    "positive": 0 if name == SINGLE_CLASS else 510 - 60 * index,
                    "negative": 1350,
                    "unlabelled": 209,
                },
            }
            for index, name in enumerate(TARGETS)
        },
        "kinds": {name: Binary().as_json() for name in TARGETS},
        "single_class_targets": [SINGLE_CLASS],
        "warnings": [f"target {SINGLE_CLASS}: no positive in test; it will be left out of the mean"],
    }


def _metrics(rng: np.random.Generator, levels: dict[str, float], seeds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for arm, level in levels.items():
        for fraction in FRACTIONS:
            for seed in range(seeds):
                scores = {}
                for index, target in enumerate(TARGETS):
                    gain = SLOPES.get(arm, 0.015) * np.log(fraction / FRACTIONS[0])
                    auroc = level + gain + 0.03 * (1 - index) + rng.normal(0, 0.006)
                    scores[target] = None if target == SINGLE_CLASS else float(auroc)
                known = [value for value in scores.values() if value is not None]
                scores["mean"] = float(np.mean(known))
                key = {"arm": arm, "label_fraction": fraction, "seed": seed}
                rows += [_row(key, target, auroc, round(4790 * fraction)) for target, auroc in scores.items()]
    return rows


def _row(key: dict[str, object], target: str, auroc: float | None, n_train: int) -> dict[str, object]:
    """One row with every key; numbers that are made up so that each metric differs from the others."""
    offsets = {metric: 0.01 * index - 0.1 for index, metric in enumerate(Binary.points)}
    numbers = {metric: None if auroc is None else auroc + offset for metric, offset in offsets.items()}
    numbers["exact_match" if target != "mean" else "threshold"] = None
    return {
        **key,
        "target": target,
        "kind": "binary",
        "auroc": auroc,
        "auroc_low": None if auroc is None else auroc - 0.031,
        "auroc_high": None if auroc is None else auroc + 0.029,
        **numbers,
        "n_train": n_train,
        "n_test": 2069,
        "n_positive": 0 if auroc is None else 415,
        "note": "no positive in test" if auroc is None else None,
    }


def _results(rows: list[dict[str, object]], baseline: str) -> pd.DataFrame:
    """Rows of results.csv: the differences of the means over seeds, with intervals of .02."""
    means = pd.DataFrame(rows).groupby(["arm", "label_fraction", "target"], sort=False)["auroc"].mean().reset_index()
    other = means[means["arm"] == baseline].set_index(["label_fraction", "target"])["auroc"]
    keys = list(zip(means["label_fraction"], means["target"], strict=True))
    gap = means["auroc"] - [other.get(key, np.nan) for key in keys]
    gap = gap.where(means["arm"] != baseline)
    numbers = {"difference": gap, "difference_low": gap - 0.01, "difference_high": gap + 0.01, "p": 0.004}
    return means.assign(kind="binary", baseline=baseline if len(other) else None, pairs=3, **numbers)


def _grouped(rows: list[dict[str, object]], keys: list[dict[str, str]]) -> list[dict[str, object]]:
    """The rows once for every one of ``keys``, a little higher each time."""
    return [
        {**row, **key} | ({} if row["auroc"] is None else {"auroc": row["auroc"] + 0.02 * index})
        for index, key in enumerate(keys, start=1)
        for row in rows
    ]


def _write_arrays(folder: Path, rng: np.random.Generator, levels: dict[str, float], seeds: int) -> None:
    targets = (rng.random((N_TEST, len(TARGETS))) < (0.3, 0.25, 0.4, 0)).astype(np.float32)
    targets[rng.random(targets.shape) < 0.1] = np.nan
    predictions = {}
    for arm, level in levels.items():
        for fraction in FRACTIONS:
            for seed in range(seeds):
                signal = np.nan_to_num(targets, nan=0.5) * 8 * (level + 0.04 * fraction - 0.5)
                logits = signal - 1 + rng.normal(0, 1, targets.shape)
                predictions[f"{arm}/{fraction}/seed{seed}"] = 1 / (1 + np.exp(-logits))
    np.savez(folder / "predictions.npz", targets=targets, target_names=np.array(TARGETS), **predictions)

    group = rng.integers(0, 4, N_TEST)
    diameter = 4 + 5 * group + rng.normal(0, 1, N_TEST)
    diameter[::9] = np.nan
    np.savez(
        folder / "embedding.npz",
        arm=np.array(list(levels)[-1]),
        seed=np.array(0),
        encoder=np.array(f"{list(levels)[-1]}-seed0"),
        features=(rng.normal(0, 1, (4, 16))[group] * 2 + rng.normal(0, 1, (N_TEST, 16))).astype(np.float32),
        patients=np.array([f"LIDC-IDRI-{i // 3:04d}" for i in range(N_TEST)]),
        **{"clinical.subtlety": group.astype(float), "clinical.diameter": diameter},
        **{f"target.{name}": targets[:, index] for index, name in enumerate(TARGETS)},
    )
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    angle = np.arctan2(y, x)
    images = [
        [(np.hypot(x, y * (1 + 0.4 * c)) < 0.6 + 0.15 * np.cos((2 + i) * angle)) * (255 - 60 * c) for c in range(3)]
        for i in range(10)
    ]
    titles = np.array([f"LIDC-IDRI-{i:04d}, malignancy {1 + i % 5}" for i in range(10)])
    np.savez(
        folder / "samples.npz", images=np.array(images, dtype=np.uint8), titles=titles, channel_names=np.array(CHANNELS)
    )


def _write_logs(folder: Path, rng: np.random.Generator, levels: dict[str, float], seeds: int) -> None:
    (folder / "logs").mkdir()
    step = np.arange(180)
    for index, arm in enumerate(name for name in levels if parse_arm(name).method.trains):
        for seed in range(seeds):
            table = pd.DataFrame(
                {
                    "step": step,
                    "epoch": step // 18,
                    "loss": 4.5 + 0.3 * index + 1.2 * np.exp(-step / 40) + rng.normal(0, 0.05, 180),
                    "learning_rate": 0.05 * np.minimum(step / 18, 1) * (1 + np.cos(np.pi * step / 180)) / 2,
                    "images_per_second": 410 - 20 * index + rng.normal(0, 8, 180),
                    "data_wait": np.clip(0.012 + rng.normal(0, 0.003, 180), 0, 1),
                    "augmentation": np.clip(0.05 + rng.normal(0, 0.004, 180), 0, 1),
                }
            )
            table.to_csv(folder / "logs" / f"{parse_arm(arm).encoder(seed)}.csv", index=False)


@pytest.fixture(scope="session")
def write_run(tmp_path_factory: pytest.TempPathFactory) -> WriteRun:
    """Return a function that writes a run folder and returns its path."""

    def write(
        levels: dict[str, float] | None = None,
        seeds: int = 3,
        title: str = "LIDC nodule readings",
        baseline: str = "simclr",
    ) -> Path:
        levels = LEVELS if levels is None else levels
        folder = tmp_path_factory.mktemp("run")
        rng = np.random.default_rng(0)
        rows = _metrics(rng, levels, seeds)
        (folder / "metrics.json").write_text(json.dumps(rows))
        _results(rows, baseline).to_csv(folder / "results.csv", index=False)
        grouped = _grouped(rows, [{"level": "bag"}, {"level": "patient"}])
        (folder / "levels.json").write_text(json.dumps(grouped))
        sizes = [{"subgroup": "diameter", "value": value} for value in ("0 to 6 mm", "6 mm and more")]
        subgroups = _grouped([row for row in rows if row["target"] != "mean"], sizes)
        (folder / "subgroups.json").write_text(json.dumps(subgroups))
        (folder / "cohort.json").write_text(json.dumps(_cohort(title)))
        (folder / "config.yaml").write_text("data:\n  source: lidc\n  image_size: 32\nloss:\n  temperature: 0.07\n")
        environment = {
            "command": "mmcuda train --data lidc --out runs/demo",
            "mmcuda": "0.1.0",
            "torch": "2.14.1",
            "python": "3.11.2",
            "cpu": "Example CPU <2 cores>",
            "threads": 2,
            "device": "cpu",
            "kernels": "avx512-bf16",
            "seconds": {"pretrain": 545.2, "evaluate": 38.4},
        }
        (folder / "environment.json").write_text(json.dumps(environment))
        _write_arrays(folder, rng, levels, seeds)
        _write_logs(folder, rng, levels, seeds)
        return folder

    return write

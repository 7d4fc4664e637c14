"""Typed reading of a run folder: every file that the report needs, checked once."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmcuda.errors import UserError
from mmcuda.report.results import Results
from mmcuda.study.arms import Arm, parse_arm
from mmcuda.targets import KINDS, Target, output_columns, target_from_json

NUMBERS = ("label_fraction", "seed", "n_train", "n_test")
TABLE_COLUMNS = (
    *("arm", "label_fraction", "target", "kind", "baseline", "pairs"),
    *("difference", "difference_low", "difference_high", "p"),
)
LOG_COLUMNS = ("step", "epoch", "loss", "learning_rate", "images_per_second", "data_wait", "augmentation")


@dataclass(frozen=True)
class Side:
    """Size of one side of the split."""

    images: int
    patients: int


@dataclass(frozen=True)
class ClinicalSummary:
    """One clinical label of the cohort."""

    name: str
    relation: str  # "equal" or "within 25"
    description: str
    weight: float  # in the loss
    missing: float  # fraction of images without a value
    positives_per_batch: float


@dataclass(frozen=True)
class TargetSummary:
    """One target of the cohort."""

    name: str
    kind: Target
    train: dict[str, float]  # what there is to count, in words -> number
    test: dict[str, float]


@dataclass(frozen=True)
class CohortSummary:
    """What cohort.json says about the data."""

    name: str
    title: str
    statement: str
    images: int
    patients: int
    bags: int
    train: Side
    test: Side
    leak_check: str
    clinical: tuple[ClinicalSummary, ...]
    targets: tuple[TargetSummary, ...]
    single_class_targets: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Environment:
    """How the run was made."""

    command: str
    seconds: dict[str, float]  # stage -> seconds
    facts: dict[str, str]  # versions and hardware


@dataclass(frozen=True)
class Predictions:
    """Labels and predictions of the test images."""

    targets: np.ndarray  # [n_test, T], NaN = no label
    kinds: dict[str, Target]  # the T targets by name
    predictions: dict[tuple[str, float, int], np.ndarray]  # (arm, label fraction, seed) -> [n_test, outputs]

    @property
    def names(self) -> list[str]:
        """The T names."""
        return list(self.kinds)

    def of(self, name: str, arm: str, fraction: float) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the labels [n] of a target's test images that have one, and an arm's predictions [n, outputs] by seed.

        Seeds whose labels could not train the target are left out.
        """
        values, columns = self.targets[:, self.names.index(name)], output_columns(self.kinds)[name]
        known = ~np.isnan(values)
        of_arm = [
            found[known, columns]
            for (other, share, _), found in self.predictions.items()
            if other == arm and math.isclose(share, fraction)
        ]
        return values[known], [found for found in of_arm if not np.isnan(found).any()]


@dataclass(frozen=True)
class Embedding:
    """Features of the test images, and the encoder that they are of."""

    arm: str
    seed: int
    encoder: str  # name of its checkpoint
    features: np.ndarray  # [n, F]
    clinical: dict[str, np.ndarray]  # name -> [n], NaN = missing
    targets: dict[str, np.ndarray]  # name -> [n], NaN = no label


@dataclass(frozen=True)
class Samples:
    """A few images to show."""

    images: np.ndarray  # [m, C, H, W] uint8
    titles: tuple[str, ...]  # m titles
    channel_names: tuple[str, ...]  # C names


@dataclass(frozen=True)
class Run:
    """Everything the report reads."""

    folder: Path
    config: str  # config.yaml as written
    environment: Environment
    cohort: CohortSummary
    results: Results  # of the first kind of target: metrics.json and results.csv
    kinds: dict[str, Results]  # of each kind of target, the first one among them
    metrics: pd.DataFrame  # rows of metrics.json, null as NaN
    levels: pd.DataFrame  # rows of levels.json; empty where an image is all there is
    subgroups: pd.DataFrame  # rows of subgroups.json; empty without subgroups
    predictions: Predictions
    embedding: Embedding | None  # None where no encoder was kept
    samples: Samples
    logs: dict[tuple[str, int], pd.DataFrame]  # (arm, seed) -> LOG_COLUMNS


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with one file into one message that names it."""
    if not path.is_file():
        raise UserError(
            f"{path}: file is missing; a report needs the complete folder of `mmcuda train` or `mmcuda study`"
        )
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{path}: expected an entry {error}, found none") from error
    except (ValueError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def read_environment(path: Path) -> Environment:
    """Read environment.json."""
    with _reading(path):
        raw: dict[str, Any] = json.loads(path.read_text())
        seconds = {stage: float(value) for stage, value in raw.pop("seconds").items()}
        return Environment(str(raw.pop("command")), seconds, {name: str(value) for name, value in raw.items()})


def read_cohort(path: Path) -> CohortSummary:
    """Read cohort.json."""
    with _reading(path):
        raw: dict[str, Any] = json.loads(path.read_text())
        return CohortSummary(
            name=raw["name"],
            title=raw["title"],
            statement=raw["statement"],
            images=int(raw["images"]),
            patients=int(raw["patients"]),
            bags=int(raw["bags"]),
            train=Side(**raw["split"]["train"]),
            test=Side(**raw["split"]["test"]),
            leak_check=raw["leak_check"],
            clinical=tuple(ClinicalSummary(name=name, **entry) for name, entry in raw["clinical"].items()),
            targets=tuple(
                TargetSummary(name, target_from_json(raw["kinds"][name]), entry["train"], entry["test"])
                for name, entry in raw["targets"].items()
            ),
            single_class_targets=tuple(raw["single_class_targets"]),
            warnings=tuple(raw["warnings"]),
        )


def _read_rows(path: Path, *keys: str) -> pd.DataFrame:
    with _reading(path):
        rows = pd.DataFrame(json.loads(path.read_text()))
        numbers = list(NUMBERS)
        for kind in [KINDS[name] for name in rows.get("kind", pd.Series(dtype=str)).unique()]:
            intervals = [f"{metric}{end}" for metric in kind.metrics for end in ("", "_low", "_high")]
            numbers += [*intervals, *kind.points, *["n_positive"] * kind.has_thresholds]
        missing = [name for name in (*keys, "arm", "target", "kind", *numbers, "note") if name not in rows]
        if missing:
            raise UserError(f"{path}: expected rows with {', '.join(missing)}, got columns {list(rows.columns)}")
        for name in numbers:
            rows[name] = pd.to_numeric(rows[name])
        rows["note"] = rows["note"].fillna("")
        for name in set(rows["arm"]):
            parse_arm(name)
        return rows


def _read_predictions(path: Path, kinds: dict[str, Target]) -> Predictions:
    with _reading(path), np.load(path) as arrays:
        targets = arrays["targets"]
        shape = (len(targets), sum(target.outputs for target in kinds.values()))
        predictions: dict[tuple[str, float, int], np.ndarray] = {}
        for key in arrays.files:
            parts = re.fullmatch(r"(.+)/([\d.e+-]+)/seed(\d+)", key)
            if parts:
                values = arrays[key]
                if values.shape != shape:
                    raise UserError(f"{path}: {key} must be {list(shape)}, got {list(values.shape)}")
                predictions[parts[1], float(parts[2]), int(parts[3])] = values
        return Predictions(targets, {str(name): kinds[str(name)] for name in arrays["target_names"]}, predictions)


def _read_embedding(path: Path) -> Embedding:
    with _reading(path), np.load(path) as arrays:
        named: dict[str, dict[str, np.ndarray]] = {"clinical": {}, "target": {}}
        for key in arrays.files:
            kind, dot, name = key.partition(".")
            if dot and kind in named:
                named[kind][name] = arrays[key]
        arm, seed, encoder = str(arrays["arm"]), int(arrays["seed"]), str(arrays["encoder"])
        return Embedding(arm, seed, encoder, arrays["features"], named["clinical"], named["target"])


def read_samples(path: Path) -> Samples:
    """Read samples.npz."""
    with _reading(path), np.load(path) as arrays:
        images = arrays["images"]
        if images.ndim != 4:
            raise UserError(f"{path}: images must be [m, C, H, W], got {list(images.shape)}")
        return Samples(images, tuple(map(str, arrays["titles"])), tuple(map(str, arrays["channel_names"])))


def _read_log(path: Path) -> pd.DataFrame:
    with _reading(path):
        table = pd.read_csv(path)
        missing = [name for name in LOG_COLUMNS if name not in table]
        if missing:
            raise UserError(f"{path}: expected columns {', '.join(missing)}, got {', '.join(table.columns)}")
        return table


def read_results(folder: Path) -> dict[str, Results]:
    """Read metrics.json and results.csv, whose baseline the arms are compared with, for each kind of target."""
    metrics = _read_rows(folder / "metrics.json")
    path = folder / "results.csv"
    with _reading(path):
        table = pd.read_csv(path)
        missing = [name for name in TABLE_COLUMNS if name not in table]
        if missing:
            raise UserError(f"{path}: expected columns {', '.join(missing)}, got {', '.join(table.columns)}")
    baseline = next(iter(table["baseline"].dropna()), None)
    return {
        kind: Results(metrics[metrics["kind"] == kind], (), baseline, table[table["kind"] == kind], KINDS[kind])
        for kind in KINDS
        if (metrics["kind"] == kind).any()
    }


def _read_logs(folder: Path, metrics: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """Read the logs of the encoders that were trained, each once, by the arm that probes it."""
    logs: dict[tuple[str, int], pd.DataFrame] = {}
    for name, seed in metrics[["arm", "seed"]].drop_duplicates().itertuples(index=False):
        arm = parse_arm(name)
        encoder = arm.encoder(int(seed))
        if encoder and arm.method.trains:
            logs.setdefault((Arm(arm.method, arm.label).name, int(seed)), _read_log(folder / "logs" / f"{encoder}.csv"))
    return logs


def read_run(folder: Path) -> Run:
    """Read a run folder written by ``mmcuda train`` or ``mmcuda study``.

    Raises:
        UserError: if a file is missing or malformed; the message names the file.
    """
    metrics, results = _read_rows(folder / "metrics.json"), read_results(folder)
    cohort = read_cohort(folder / "cohort.json")
    levels, subgroups, embedding = (folder / name for name in ("levels.json", "subgroups.json", "embedding.npz"))
    keeps_encoder = any(parse_arm(name).encoder(0) for name in metrics["arm"].unique())
    config = folder / "config.yaml"
    with _reading(config):
        config_text = config.read_text()
    return Run(
        folder=folder,
        config=config_text,
        environment=read_environment(folder / "environment.json"),
        cohort=cohort,
        results=next(iter(results.values())),
        kinds=results,
        metrics=metrics,
        levels=_read_rows(levels, "level") if levels.exists() else pd.DataFrame(),
        subgroups=_read_rows(subgroups, "subgroup", "value") if subgroups.exists() else pd.DataFrame(),
        predictions=_read_predictions(
            folder / "predictions.npz", {target.name: target.kind for target in cohort.targets}
        ),
        embedding=_read_embedding(embedding) if keeps_encoder else None,
        samples=read_samples(folder / "samples.npz"),
        logs=_read_logs(folder, metrics),
    )

"""The results of a run: tables of metrics as .csv and .json, and the predictions of the test images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mmcuda.data.cohort import Cohort
from mmcuda.evaluate.metrics import Floats
from mmcuda.evaluate.rows import Row
from mmcuda.evaluate.tables import Tables
from mmcuda.train.folder import write_arrays, write_json, write_text


def write_tables(root: Path, tables: Tables) -> None:
    """Write metrics, levels and subgroups, each as .csv and .json; a table without rows is left out."""
    for name, rows in vars(tables).items():
        if rows:
            write_text(root / f"{name}.csv", rows_as_csv(rows))
            write_json(root / f"{name}.json", rows)


def write_predictions(root: Path, cohort: Cohort, predictions: Mapping[str, Floats]) -> None:
    """Write predictions.npz.

    Args:
        root: folder.
        cohort: targets and patients of its test images.
        predictions: [n_test, outputs] each, by a name such as ``clinical/0.05/seed0``.
    """
    truth = {
        "targets": cohort.target_matrix[cohort.test],
        "target_names": np.array(list(cohort.targets)),
        "patients": cohort.patients[cohort.test],
    }
    write_arrays(root / "predictions.npz", {**predictions, **truth})


def rows_as_csv(rows: list[Row]) -> str:
    """Return the rows as CSV; an undefined number is an empty cell."""
    text = io.StringIO()
    pd.DataFrame(rows).to_csv(text, index=False, lineterminator="\n")
    return text.getvalue()

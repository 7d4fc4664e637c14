"""The results of a run: metrics and test probabilities, kept whole in its folder after every encoder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Split
from mmcuda.evaluate.label_efficiency import EncoderScores, Row, target_matrix
from mmcuda.train.folder import RunFolder, write_arrays, write_json, write_text


@dataclass
class ScoreFiles:
    """Rows of metrics.json and arrays of predictions.npz."""

    rows: list[Row] = field(default_factory=list)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: RunFolder) -> ScoreFiles:
        """Return what the folder holds so far."""
        metrics, predictions = folder.root / "metrics.json", folder.root / "predictions.npz"
        if not metrics.exists():
            return cls()
        with np.load(predictions) as arrays:
            return cls(json.loads(metrics.read_text()), dict(arrays))

    def has(self, pretraining: str, seed: int) -> bool:
        """Return whether this encoder has been scored."""
        return any(row["pretraining"] == pretraining and row["seed"] == seed for row in self.rows)

    def add(self, scores: EncoderScores, pretraining: str, seed: int) -> None:
        """Add one encoder's scores."""
        self.rows.extend(scores.rows)
        for fraction, probabilities in scores.probabilities.items():
            self.predictions[f"{pretraining}/{fraction!r}/seed{seed}"] = probabilities

    def save(self, folder: RunFolder, cohort: Cohort, split: Split) -> None:
        """Write predictions.npz, metrics.csv and metrics.json. The last one makes an encoder count as scored."""
        truth = {"targets": target_matrix(cohort)[split.test], "target_names": np.array(list(cohort.targets))}
        write_arrays(folder.root / "predictions.npz", self.predictions | truth)
        write_text(folder.root / "metrics.csv", rows_as_csv(self.rows))
        write_json(folder.root / "metrics.json", self.rows)


def rows_as_csv(rows: list[Row]) -> str:
    """Return the rows as CSV; an undefined number is an empty cell."""
    text = io.StringIO()
    pd.DataFrame(rows).to_csv(text, index=False, lineterminator="\n")
    return text.getvalue()

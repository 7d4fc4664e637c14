"""The results of a run: tables of metrics and test probabilities, kept whole in its folder after every encoder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Split
from mmcuda.evaluate.label_efficiency import EncoderScores
from mmcuda.evaluate.rows import Row
from mmcuda.evaluate.tables import Tables, target_matrix
from mmcuda.train.folder import RunFolder, write_arrays, write_json, write_text


@dataclass
class ScoreFiles:
    """Rows of metrics, levels and subgroups (.csv and .json), and arrays of predictions.npz."""

    tables: Tables = field(default_factory=Tables)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: RunFolder) -> ScoreFiles:
        """Return what the folder holds so far."""
        metrics, predictions = folder.root / "metrics.json", folder.root / "predictions.npz"
        if not metrics.exists():
            return cls()
        files = {name: folder.root / f"{name}.json" for name in vars(Tables())}
        rows = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
        with np.load(predictions) as arrays:
            return cls(Tables(**rows), dict(arrays))

    def has(self, pretraining: str, seed: int) -> bool:
        """Return whether this encoder has been scored."""
        return any(row["pretraining"] == pretraining and row["seed"] == seed for row in self.tables.metrics)

    def add(self, scores: EncoderScores, pretraining: str, seed: int) -> None:
        """Add one encoder's scores."""
        self.tables.extend(scores.tables)
        for fraction, probabilities in scores.probabilities.items():
            self.predictions[f"{pretraining}/{fraction!r}/seed{seed}"] = probabilities

    def save(self, folder: RunFolder, cohort: Cohort, split: Split) -> None:
        """Write predictions.npz and the tables. The last one, metrics.json, makes an encoder count as scored."""
        truth = {
            "targets": target_matrix(cohort)[split.test],
            "target_names": np.array(list(cohort.targets)),
            "patients": cohort.patients[split.test],
        }
        write_arrays(folder.root / "predictions.npz", self.predictions | truth)
        for name, rows in reversed(vars(self.tables).items()):
            if rows:
                write_text(folder.root / f"{name}.csv", rows_as_csv(rows))
                write_json(folder.root / f"{name}.json", rows)


def rows_as_csv(rows: list[Row]) -> str:
    """Return the rows as CSV; an undefined number is an empty cell."""
    text = io.StringIO()
    pd.DataFrame(rows).to_csv(text, index=False, lineterminator="\n")
    return text.getvalue()

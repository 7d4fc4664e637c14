"""What a run and a report say about a cohort: sizes, split, clinical labels, targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmcuda.data.check.labels import label_problems, target_problems
from mmcuda.data.positives import positives_per_batch
from mmcuda.data.split import Split, patients_on_two_sides
from mmcuda.data.table import CohortTable
from mmcuda.targets import Binary

JUDGED = ("train", "test")  # the sides on which a target needs several classes or values


def summarise_table(table: CohortTable, split: Split, batch_size: int) -> dict[str, Any]:
    """Return the content of cohort.json.

    Args:
        table: the cohort.
        split: its sides.
        batch_size: images in a batch, for the number of positives in it.
    """
    sides = {side: rows for side, rows in split.sides.items() if len(rows)}
    leaking = ", ".join(patients_on_two_sides(table.patients, split))
    kinds = {name: table.kinds.get(name, Binary()) for name in table.targets}
    counts = {
        name: {side: kinds[name].counts(values[rows]) for side, rows in sides.items()}
        for name, values in table.targets.items()
    }
    return {
        "name": table.name,
        "title": table.title,
        "statement": table.statement,
        "notes": list(table.notes),
        "images": len(table),
        "patients": len(np.unique(table.patients)),
        "bags": len(np.unique(table.bags)),
        "split": {
            side: {"images": len(rows), "patients": len(np.unique(table.patients[rows]))}
            for side, rows in sides.items()
        },
        "leak_check": f"failed: on two sides are {leaking}" if leaking else "passed: no patient on both sides",
        "clinical": {
            name: {
                "relation": str(label.relation),
                "description": label.description,
                "weight": label.weight,
                "missing": float(np.isnan(label.values).mean()),
                "positives_per_batch": positives_per_batch(label, split.train, batch_size),
            }
            for name, label in table.clinical.items()
        },
        "targets": counts,
        "kinds": {name: target.as_json() for name, target in kinds.items()},
        "single_class_targets": [
            name
            for name, values in table.targets.items()
            if any(not kinds[name].can_learn(values[rows]) for side, rows in sides.items() if side in JUDGED)
        ],
        "warnings": [
            str(problem) for problem in label_problems(table, split, batch_size) + target_problems(table, split)
        ],
    }

"""Problems of labels: clinical ones without positives, targets that lack one."""

from __future__ import annotations

import numpy as np

from mmcuda.data.positives import (
    ENOUGH,
    batch_size_for_one,
    positives_per_batch,
    propose_rules,
    relation_in_words,
)
from mmcuda.data.problems import Problem
from mmcuda.data.split import Indices, Split
from mmcuda.data.table import ClinicalLabel, CohortTable
from mmcuda.targets import Binary

CONSEQUENCES = {  # of a side that lacks a class of a target, the worst first
    "train": "it cannot be learned",
    "test": "it will be left out of the mean",
    "validation": "no threshold can be chosen there",
}


def label_problems(table: CohortTable, split: Split, batch_size: int) -> list[Problem]:
    """Return a warning for every clinical label that gives almost no positives, or nothing but positives."""
    problems = []
    for name, label in table.clinical.items():
        values = label.values[split.train]
        known = values[np.isfinite(values)]
        if len(known) == 0:
            problems.append(Problem("warning", name, "no training image has a value; pretraining will not see it"))
        elif known.max() - known.min() <= label.relation.tolerance:
            problems.append(
                Problem("warning", name, f"all {len(known):,} training images with a value are positives of each other")
            )
        elif positives_per_batch(label, split.train, batch_size) < ENOUGH:
            problems.append(Problem("warning", name, _few_positives(label, split.train, batch_size)))
    return problems


def _few_positives(label: ClinicalLabel, rows: Indices, batch_size: int) -> str:
    positives = positives_per_batch(label, rows, batch_size)
    proposed = [f"{rule} ({number:.1f})" for rule, number in propose_rules(label, rows, batch_size).items()]
    needed = batch_size_for_one(positives, batch_size)
    if not proposed and needed is not None:
        proposed = [f"--pretrain.batch_size {needed} (1.0)"] if needed <= len(rows) else []
        proposed += ["the sampler class_aware"]
    advice = f"; try {' or '.join(proposed)}" if proposed else ""
    return f"{positives:.2g} positives per batch of {batch_size} {relation_in_words(label)}{advice}"


def target_problems(table: CohortTable, split: Split) -> list[Problem]:
    """Return a warning for every target that lacks a class, or values that differ, on a side of the split."""
    if not table.targets:
        return [Problem("warning", "", "no targets: encoders can be pretrained on this cohort, but not scored")]
    problems = []
    for name, values in table.targets.items():
        target = table.kinds.get(name, Binary())
        lacks: dict[str, list[str]] = {}  # what is lacking -> on which sides
        unusable = []
        for side, rows in split.sides.items():
            if len(rows) == 0:
                continue
            for what in target.lacking(values[rows]):
                lacks.setdefault(what, []).append(side)
            if not target.can_learn(values[rows]):
                unusable.append(side)
        if lacks:
            words = ", ".join(f"no {what} in {' or '.join(where)}" for what, where in lacks.items())
            worst = next((side for side in CONSEQUENCES if side in unusable), None)
            consequence = f"; {CONSEQUENCES[worst]}" if worst else ""
            problems.append(Problem("warning", f"target {name}", f"{words}{consequence}"))
    return problems

"""Problems of labels: clinical ones without positives, targets of a single class."""

from __future__ import annotations

from collections.abc import Mapping

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


def target_problems(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[Problem]:
    """Return a warning for every target that lacks a class on a side of the split.

    Args:
        counts: target -> side -> images that are ``positive`` and ``negative``.
    """
    if not counts:
        return [Problem("warning", "", "no targets: encoders can be pretrained on this cohort, but not scored")]
    problems = []
    for name, sides in counts.items():
        lacks: dict[str, list[str]] = {}  # what is lacking -> on which sides
        for side, count in sides.items():
            missing = [kind for kind in ("positive", "negative") if count[kind] == 0]
            if missing:
                lacks.setdefault("label" if len(missing) == 2 else missing[0], []).append(side)
        if lacks:
            words = ", ".join(f"no {kind} in {' or '.join(where)}" for kind, where in lacks.items())
            worst = next(side for side in CONSEQUENCES if any(side in where for where in lacks.values()))
            problems.append(Problem("warning", f"target {name}", f"{words}; {CONSEQUENCES[worst]}"))
    return problems

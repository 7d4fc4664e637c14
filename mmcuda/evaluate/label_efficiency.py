"""Label efficiency: how well frozen features predict the targets when ever fewer images are labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices, Split, draw_labelled
from mmcuda.evaluate.bootstrap import bootstrap_weights, interval, mean_of_draws
from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.metrics import Floats, auprc_of_targets, auroc_of_targets, mean_ignoring_nan
from mmcuda.evaluate.probe import fit_probe

Row = dict[str, str | float | int | None]
Key = Mapping[str, str | float | int]
Targets = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EncoderScores:
    """The scores of one encoder: rows of metrics, and the test probabilities at each label fraction."""

    rows: list[Row]
    probabilities: dict[float, Floats]  # fraction -> [n_test, T], mean over draws, NaN where undefined


def target_matrix(cohort: Cohort) -> Targets:
    """Return the cohort's targets as columns, [N, T]."""
    return np.stack(list(cohort.targets.values()), axis=1)


def label_draws(cohort: Cohort, split: Split, fraction: float, draws: int, seed: int) -> list[Indices]:
    """Return the labelled training images of each draw; at fraction 1 all draws would be alike, so there is one."""
    seeds = np.random.SeedSequence(seed).generate_state(1 if fraction == 1 else draws)
    return [draw_labelled(cohort.patients, split.train, fraction, int(s)) for s in seeds]


def score_encoder(
    encoder: nn.Module,
    cohort: Cohort,
    split: Split,
    *,
    pretraining: str,
    seed: int,
    label_fractions: Sequence[float],
    draws: int,
    bootstrap: int,
) -> EncoderScores:
    """Probe a frozen encoder at every label fraction and score the probes on the test images.

    Args:
        encoder: frozen; features are computed once.
        cohort: images and targets.
        split: training and test images.
        pretraining: name of the encoder in the rows.
        seed: chooses the labelled patients; the same for every encoder that is to be compared.
        label_fractions: fractions of the training patients that are labelled.
        draws: draws of the labelled patients at fractions below 1; scores are means over draws.
        bootstrap: resamples of the test patients behind the intervals.
    """
    features = extract_features(encoder, cohort.images, np.arange(len(cohort.images)))
    targets = target_matrix(cohort)
    weights = bootstrap_weights(cohort.patients[split.test], bootstrap)
    scored = EncoderScores([], {})
    for fraction in label_fractions:
        labelled = label_draws(cohort, split, fraction, draws, seed)
        scores = [fit_probe(features[drawn], targets[drawn]).probabilities(features[split.test]) for drawn in labelled]
        scored.probabilities[fraction] = mean_ignoring_nan(np.stack(scores), axis=0)
        key: Key = {"pretraining": pretraining, "label_fraction": fraction, "seed": seed}
        scored.rows.extend(
            score_rows(key, list(cohort.targets), scores, targets[split.test], [targets[d] for d in labelled], weights)
        )
    return scored


def score_rows(
    key: Key,
    names: Sequence[str],
    scores: Sequence[Floats],
    test_targets: Targets,
    labelled_targets: Sequence[Targets],
    weights: Floats,
) -> list[Row]:
    """Return a row for every target and one for their mean, each the mean over draws.

    The mean is over the targets that have both classes in the test set and in the training labels of some draw.

    Args:
        key: what the rows share (pretraining, label_fraction, seed).
        names: the T targets.
        scores: per draw, [n_test, T] probabilities, NaN where a target had one class in training.
        test_targets: [n_test, T] in {0, 1, NaN}.
        labelled_targets: per draw, [n, T] the training targets used.
        weights: [1 + R, n_test] of ``bootstrap_weights``.
    """
    aurocs = mean_of_draws(np.stack([auroc_of_targets(s, test_targets, weights) for s in scores]))
    auprcs = mean_ignoring_nan(np.stack([auprc_of_targets(s, test_targets) for s in scores]), axis=0)
    trained = [np.isfinite(labels) for labels in labelled_targets]  # per draw [n, T]
    tested = np.isfinite(test_targets)
    rows = [
        _row(
            key,
            name,
            aurocs[t],
            float(auprcs[t]),
            float(np.mean([d[:, t].sum() for d in trained])),
            int(tested[:, t].sum()),
        )
        for t, name in enumerate(names)
    ]
    defined = np.isfinite(aurocs[:, 0])
    n_train = float(np.mean([d.any(axis=1).sum() for d in trained]))
    n_test = int(tested.any(axis=1).sum())
    if not defined.any():
        return [*rows, _row(key, "mean", np.full(aurocs.shape[1], np.nan), np.nan, n_train, n_test)]
    # A resample in which a target lost a class has no mean: another set of targets would not be comparable.
    mean_auroc, mean_auprc = aurocs[defined].mean(axis=0), float(auprcs[defined].mean())
    return [*rows, _row(key, "mean", mean_auroc, mean_auprc, n_train, n_test)]


def _row(key: Key, target: str, aurocs: Floats, auprc: float, n_train: float, n_test: int) -> Row:
    """Return one row; ``aurocs`` [1 + R] holds the AUROC of the sample and of its resamples."""
    low, high = interval(aurocs[1:])
    return {
        "pretraining": key["pretraining"],
        "label_fraction": key["label_fraction"],
        "target": target,
        "seed": key["seed"],
        "auroc": _number(aurocs[0]),
        "auroc_low": _number(low),
        "auroc_high": _number(high),
        "auprc": _number(auprc),
        "n_train": n_train,
        "n_test": n_test,
    }


def _number(value: float) -> float | None:
    """Return a plain float, or None for NaN: JSON has no NaN."""
    return float(value) if np.isfinite(value) else None

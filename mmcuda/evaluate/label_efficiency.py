"""Label efficiency: how well frozen features predict the targets when ever fewer images are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices, draw_labelled
from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.features import Features, extract_features
from mmcuda.evaluate.metrics import Floats, mean_ignoring_nan
from mmcuda.evaluate.probe import fit_probe, out_of_fold
from mmcuda.evaluate.rows import Key
from mmcuda.evaluate.tables import ClassifierScores, Tables, score_tables
from mmcuda.evaluate.threshold import Rule


@dataclass(frozen=True)
class EncoderScores:
    """The scores of one encoder: its rows of the tables, and the test predictions at each label fraction."""

    tables: Tables = field(default_factory=Tables)
    predictions: dict[float, Floats] = field(default_factory=dict)  # fraction -> [n_test, outputs], mean over draws


def label_draws(cohort: Cohort, fraction: float, draws: int, seed: int) -> list[Indices]:
    """Return the labelled training images of each draw; at fraction 1 all draws would be alike, so there is one."""
    seeds = np.random.SeedSequence(seed).generate_state(1 if fraction == 1 else draws)
    return [draw_labelled(cohort.patients, cohort.train, fraction, int(s)) for s in seeds]


def score_encoder(
    encoder: nn.Module,
    cohort: Cohort,
    *,
    pretraining: str,
    seed: int,
    label_fractions: Sequence[float],
    draws: int,
    bootstrap: int,
    threshold: Rule = "youden",
) -> EncoderScores:
    """Probe a frozen encoder at every label fraction and score the probes on the test images.

    Args:
        encoder: frozen; features are computed once.
        cohort: images, targets and their split.
        pretraining: name of the encoder in the rows.
        seed: chooses the labelled patients; the same for every encoder that is to be compared.
        label_fractions: fractions of the training patients that are labelled.
        draws: draws of the labelled patients at fractions below 1; scores are means over draws.
        bootstrap: resamples of the test patients behind the intervals.
        threshold: how the threshold of every target is chosen; by ``score_probe`` never on test images.
    """
    features = extract_features(encoder, cohort.images, np.arange(len(cohort.images)))
    weights = bootstrap_weights(cohort.patients[cohort.test], bootstrap)
    scored = EncoderScores()
    for fraction in label_fractions:
        labelled = label_draws(cohort, fraction, draws, seed)
        probes = [score_probe(features, cohort, drawn) for drawn in labelled]
        scored.predictions[fraction] = mean_ignoring_nan(np.stack([probe.test for probe in probes]), axis=0)
        key: Key = {"pretraining": pretraining, "label_fraction": fraction, "seed": seed}
        scored.tables.extend(score_tables(key, cohort, probes, weights, threshold))
    return scored


def score_probe(features: Features, cohort: Cohort, labelled: Indices) -> ClassifierScores:
    """Fit a probe on the labelled images and let it score the test images.

    Its thresholds are to be chosen on the validation split; without one, on the labelled images, each scored by a
    probe that did not see its patient.

    Args:
        features: [N, F] of all images.
        cohort: its targets and its split.
        labelled: [n] the images whose labels may be seen.
    """
    truth = cohort.target_matrix[labelled]
    probe = fit_probe(features[labelled], truth, cohort.kinds)
    test = probe.predict(features[cohort.test])
    if len(cohort.validation):
        return ClassifierScores(labelled, test, cohort.validation, probe.predict(features[cohort.validation]))
    held_out = out_of_fold(features[labelled], truth, cohort.patients[labelled], cohort.kinds)
    return ClassifierScores(labelled, test, labelled, held_out)

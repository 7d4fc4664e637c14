import json

import numpy as np
import pytest
import torch

from mmcuda.data import ClinicalLabel, Split
from mmcuda.data.check.summary import summarise_table
from mmcuda.data.positives import positives_per_batch
from mmcuda.relations import Equal, Within
from mmcuda.train.summary import choose_samples, describe_environment


@pytest.mark.parametrize("relation", [Equal(), Within(0.5)])
def test_positives_per_batch_is_the_mean_over_labelled_anchors(relation):
    values = np.round(np.random.default_rng(0).normal(size=60), 1)
    values[::7] = np.nan
    near = np.abs(values[:, None] - values) <= relation.tolerance + 1e-12
    others = near.sum(axis=1)[np.isfinite(values)] - 1
    expected = others.mean() / 59 * 15  # 15 others in a batch of 16, each one of the 59 others
    label = ClinicalLabel(values, relation, "")
    if isinstance(relation, Within):  # keep clear of rounding at the tolerance itself
        label = ClinicalLabel(values, Within(0.5 + 1e-12), "")
    assert positives_per_batch(label, np.arange(60), 16) == pytest.approx(expected)


def test_a_label_nobody_has_gives_no_positives():
    assert positives_per_batch(ClinicalLabel(np.full(5, np.nan), Equal(), ""), np.arange(5), 4) == 0


def test_the_summary_counts_every_image_once(readings):
    cohort = readings
    summary = json.loads(json.dumps(summarise_table(cohort.table, cohort.split, 64), allow_nan=False))
    assert summary["split"]["train"]["images"] + summary["split"]["test"]["images"] == summary["images"]
    assert summary["split"]["train"]["patients"] + summary["split"]["test"]["patients"] == summary["patients"] == 120
    for name, values in cohort.targets.items():
        counts = summary["targets"][name]
        assert counts["train"]["positive"] + counts["test"]["positive"] == (values == 1).sum()
        assert sum(counts["test"].values()) == len(cohort.test)
    assert summary["single_class_targets"] == []


def test_a_leak_is_told(readings):
    cohort = readings
    leaking = Split(cohort.train, np.append(cohort.test, cohort.train[0]))
    patient = cohort.patients[cohort.train[0]]
    assert summarise_table(cohort.table, leaking, 64)["leak_check"] == f"failed: on two sides are {patient}"


def test_samples_are_of_different_patients(readings):
    samples = choose_samples(readings)
    assert samples["images"].shape == (8, 3, 32, 32)
    assert len(samples["titles"]) == 8
    assert len(np.unique(samples["images"], axis=0)) == 8


def test_the_environment_names_versions_and_the_machine():
    environment = describe_environment("mmcuda train --out x", torch.device("cpu"), {"pretrain": 1.0})
    assert environment["torch"] == torch.__version__
    assert environment["device"] == "cpu"
    assert environment["kernels"]
    assert environment["seconds"] == {"pretrain": 1.0}

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.tables import ClassifierScores, score_tables
from mmcuda.evaluate.threshold import choose_threshold, decision_metrics

KEY = {"pretraining": "random", "label_fraction": 1.0, "seed": 0}


def classifier_of(cohort):
    """Scores that know the targets a little; the test images of one target have none."""
    rng = np.random.default_rng(0)
    targets = cohort.target_matrix
    scores = np.clip(0.2 * np.nan_to_num(targets) + rng.random(targets.shape) * 0.8, 0, 1)
    return ClassifierScores(cohort.train, scores[cohort.test], cohort.train, scores[cohort.train])


@pytest.fixture(scope="module")
def tables(readings):
    cohort = readings
    weights = bootstrap_weights(cohort.patients[cohort.test], 20)
    return score_tables(KEY, cohort, [classifier_of(cohort)], weights, "youden")


def test_thresholds_are_chosen_on_the_held_out_images(tables, readings):
    cohort = readings
    classifier, targets = classifier_of(cohort), cohort.target_matrix
    rows = {row["target"]: row for row in tables.metrics}
    for t, name in enumerate(cohort.targets):
        held_out = classifier.held_out_predictions[:, t]
        assert rows[name]["threshold"] == choose_threshold(held_out, targets[cohort.train, t], "youden")


@pytest.mark.parametrize(("level", "column"), [("bag", "bags"), ("patient", "patients")])
def test_bags_and_patients_are_judged_by_mean_probability_and_highest_label(tables, readings, level, column):
    cohort = readings
    classifier, targets = classifier_of(cohort), cohort.target_matrix
    names = getattr(cohort, column)
    rows = {row["target"]: row for row in tables.levels if row["level"] == level}
    assert list(rows) == [*cohort.targets, "mean"]

    def grouped(rows_of_side, scores, t):
        known = np.isfinite(targets[rows_of_side, t])
        table = pd.DataFrame({"score": scores[known, t], "label": targets[rows_of_side, t][known]})
        groups = table.groupby(names[rows_of_side][known])
        return groups["score"].mean().to_numpy(), groups["label"].max().to_numpy()

    for t, name in enumerate(cohort.targets):
        threshold = choose_threshold(*grouped(cohort.train, classifier.held_out_predictions, t), "youden")
        scores, labels = grouped(cohort.test, classifier.test, t)
        assert rows[name]["n_test"] == len(labels)
        assert rows[name]["auroc"] == pytest.approx(roc_auc_score(labels, scores))
        assert rows[name]["threshold"] == pytest.approx(threshold)
        expected = decision_metrics(scores, labels, threshold)
        assert {metric: rows[name][metric] for metric in expected} == pytest.approx(expected)
        assert rows[name]["auroc_low"] <= rows[name]["auroc"] <= rows[name]["auroc_high"]


def test_extending_tables_appends_every_kind_of_row(tables):
    rows = len(tables.metrics), len(tables.levels)
    twice = type(tables)()
    twice.extend(tables)
    twice.extend(tables)
    assert (len(twice.metrics), len(twice.levels)) == (2 * rows[0], 2 * rows[1])
    assert (len(tables.metrics), len(tables.levels)) == rows


def with_subgroups(cohort, **subgroups):
    return replace(cohort, table=replace(cohort.table, subgroups=subgroups))


def test_a_subgroup_is_judged_by_its_images_at_the_thresholds_of_all(tables, readings):
    cohort = readings
    device = np.array(["", "cirrus", "spectralis"])[np.arange(len(cohort.patients)) % 3]
    classifier, weights = classifier_of(cohort), bootstrap_weights(cohort.patients[cohort.test], 20)
    rows = score_tables(KEY, with_subgroups(cohort, device=device), [classifier], weights, "youden").subgroups
    assert [(row["subgroup"], row["value"], row["target"]) for row in rows] == [
        ("device", value, name) for value in ("(missing)", "cirrus", "spectralis") for name in cohort.targets
    ]
    thresholds = {row["target"]: row["threshold"] for row in tables.metrics}
    assert all(row["threshold"] == thresholds[row["target"]] for row in rows)
    row = next(row for row in rows if (row["value"], row["target"]) == ("cirrus", "spiculation"))
    t, inside = list(cohort.targets).index("spiculation"), device[cohort.test] == "cirrus"
    scores, labels = classifier.test[inside, t], cohort.targets["spiculation"][cohort.test][inside]
    known = np.isfinite(labels)
    assert row["auroc"] == pytest.approx(roc_auc_score(labels[known], scores[known]))
    assert row["sensitivity"] == np.mean(scores[labels == 1] >= thresholds["spiculation"])
    assert row["n_test"] == known.sum()
    assert (
        row["n_train"]
        == np.isfinite(cohort.targets["spiculation"][cohort.train][device[cohort.train] == "cirrus"]).sum()
    )


def test_subgroups_come_in_the_order_of_their_numbers(readings):
    cohort = readings
    age = np.array(["60.5 to 80", "9 to 45", "45 to 60.5", "", "unknown"])[np.arange(len(cohort.patients)) % 5]
    classifier, weights = classifier_of(cohort), bootstrap_weights(cohort.patients[cohort.test], 1)
    rows = score_tables(KEY, with_subgroups(cohort, age=age), [classifier], weights, "youden").subgroups
    order = ["9 to 45", "45 to 60.5", "60.5 to 80", "(missing)", "unknown"]
    assert list(dict.fromkeys(row["value"] for row in rows)) == order


def test_a_subgroup_without_test_images_or_with_one_class_has_no_numbers_but_a_reason(readings):
    cohort = readings
    calcified = cohort.targets["calcified"] == 1
    groups = np.where(calcified, "calcified", "other")
    groups[cohort.train[:5]] = "training"
    classifier, weights = classifier_of(cohort), bootstrap_weights(cohort.patients[cohort.test], 5)
    rows = score_tables(KEY, with_subgroups(cohort, kind=groups), [classifier], weights, "youden").subgroups
    found = {row["value"]: row for row in rows if row["target"] == "calcified"}
    assert found["calcified"]["note"] == "no negative in test"
    assert found["calcified"]["auroc"] is found["calcified"]["specificity"] is None
    assert found["calcified"]["sensitivity"] is not None
    assert found["training"]["note"] == "no label in test"
    assert found["training"]["sensitivity"] is found["training"]["accuracy"] is None

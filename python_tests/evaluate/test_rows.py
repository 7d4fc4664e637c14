import numpy as np
import pytest

from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.evaluate.calibration import calibration_metrics
from mmcuda.evaluate.rows import Judged, score_rows
from mmcuda.evaluate.threshold import decision_metrics, exact_match
from mmcuda.targets import Binary

KEY = {"pretraining": "random", "label_fraction": 0.1, "seed": 0}
NAMES = ["fluid", "foci", "scar"]
PATIENTS = np.repeat(np.array([f"P{p}" for p in range(40)]), 3)
WEIGHTS = bootstrap_weights(PATIENTS, 20)


def targets_and_classifiers(draws=1):
    rng = np.random.default_rng(0)
    targets = (rng.random((120, 3)) < 0.4).astype(np.float32)
    probabilities = [np.clip(0.3 * targets + rng.random((120, 3)) * 0.7, 0, 1) for _ in range(draws)]
    targets[::7, 1] = np.nan
    return targets, [Judged(p, np.array([0.4, 0.5, 0.6])) for p in probabilities]


def rows_of(targets, classifiers):
    rows = score_rows(
        KEY, dict.fromkeys(NAMES, Binary()), classifiers, targets, [targets[:50]] * len(classifiers), WEIGHTS
    )
    return {row["target"]: row for row in rows}


def test_a_row_holds_the_metrics_of_its_labelled_images():
    targets, (classifier,) = targets_and_classifiers()
    rows = rows_of(targets, [classifier])
    for t, name in enumerate(NAMES):
        known = np.isfinite(targets[:, t])
        scores, labels = classifier.predictions[known, t], targets[known, t]
        expected = decision_metrics(scores, labels, classifier.thresholds[t]) | calibration_metrics(scores, labels)
        assert {metric: rows[name][metric] for metric in expected} == pytest.approx(expected)
        assert rows[name]["threshold"] == classifier.thresholds[t]
        assert rows[name]["n_test"] == known.sum()
        assert rows[name]["n_positive"] == (labels == 1).sum()
        assert rows[name]["exact_match"] is None
        assert rows[name]["note"] is None
    for metric in ("auroc", "auprc", "sensitivity", "f1", "ece"):
        assert rows["mean"][metric] == pytest.approx(np.mean([rows[name][metric] for name in NAMES]))
    assert rows["mean"]["exact_match"] == exact_match(classifier.predictions, targets, classifier.thresholds)
    assert rows["mean"]["threshold"] is None
    assert rows["mean"]["note"] is None


def test_numbers_are_means_over_the_classifiers_that_have_them():
    targets, classifiers = targets_and_classifiers(draws=3)
    classifiers[2].predictions[:, 0] = np.nan
    classifiers[1].thresholds[1] = np.nan
    together = rows_of(targets, classifiers)
    alone = [rows_of(targets, [classifier]) for classifier in classifiers]
    for metric in ("auroc", "sensitivity", "brier"):
        assert together["fluid"][metric] == pytest.approx(
            np.mean([alone[0]["fluid"][metric], alone[1]["fluid"][metric]])
        )
    assert together["fluid"]["note"] == "trained in 2 of 3 draws"
    assert together["foci"]["f1"] == pytest.approx(np.mean([alone[0]["foci"]["f1"], alone[2]["foci"]["f1"]]))
    assert together["foci"]["note"] == "no threshold in 1 of 3 draws"
    assert together["mean"]["exact_match"] == alone[0]["mean"]["exact_match"]  # the others lack a decision


def test_the_mean_leaves_out_and_names_a_target_without_an_auroc():
    targets, classifiers = targets_and_classifiers()
    targets[:, 2] = 0
    rows = rows_of(targets, classifiers)
    assert rows["scar"]["auroc"] is rows["scar"]["auprc"] is rows["scar"]["sensitivity"] is None
    assert rows["scar"]["note"] == "no positive in test"
    assert rows["scar"]["specificity"] is not None
    assert rows["mean"]["auroc"] == pytest.approx(np.mean([rows["fluid"]["auroc"], rows["foci"]["auroc"]]))
    assert rows["mean"]["note"] == "without scar"


def test_a_target_without_a_threshold_keeps_its_auroc_and_the_mean_has_no_decisions():
    targets, (classifier,) = targets_and_classifiers()
    classifier.thresholds[0] = np.nan
    rows = rows_of(targets, [classifier])
    assert rows["fluid"]["auroc"] is not None
    assert rows["fluid"]["accuracy"] is None
    assert rows["fluid"]["note"] == "no threshold"
    assert rows["mean"]["auroc"] is not None
    assert rows["mean"]["accuracy"] is rows["mean"]["exact_match"] is None
    assert rows["mean"]["note"] == "no decisions on fluid"


@pytest.mark.parametrize(
    ("labels", "probability", "threshold", "note"),
    [
        (np.nan, 0.5, 0.5, "no label in test"),
        (1, 0.5, 0.5, "no negative in test"),
        (0, np.nan, np.nan, "no positive in test; one class in training"),
        (0, 0.3, 0.5, "no positive in test; nothing called positive"),
    ],
)
def test_the_note_says_why_a_number_is_missing(labels, probability, threshold, note):
    targets, (classifier,) = targets_and_classifiers()
    targets[:, 0], classifier.predictions[:, 0], classifier.thresholds[0] = labels, probability, threshold
    assert rows_of(targets, [classifier])["fluid"]["note"] == note


def test_without_any_image_every_number_is_none():
    targets, (classifier,) = targets_and_classifiers()
    empty = Judged(classifier.predictions[:0], classifier.thresholds)
    rows = score_rows(KEY, dict.fromkeys(NAMES, Binary()), [empty], targets[:0], [targets], WEIGHTS[:, :0])
    for row in rows:
        assert all(row[metric] is None for metric in ("auroc", "auroc_low", *Binary.points) if metric != "threshold")
        assert row["n_test"] == 0
        assert row["note"]


def test_an_interval_from_few_resamples_says_so():
    targets, classifiers = targets_and_classifiers()
    targets[:, 0] = 0
    targets[:2, 0] = 1  # one patient of forty: absent from every third resample
    rows = rows_of(targets, classifiers)
    known = int((WEIGHTS[1:, 0] > 0).sum())
    assert known < 18
    assert rows["fluid"]["note"] == f"interval from {known} of 20 resamples"
    assert rows["mean"]["note"] == f"interval from {known} of 20 resamples"
    assert rows["foci"]["note"] is None


def test_a_precision_that_is_undefined_is_told_in_the_mean():
    targets, (classifier,) = targets_and_classifiers()
    classifier.thresholds[0] = 1.1
    rows = rows_of(targets, [classifier])
    assert rows["fluid"]["note"] == "nothing called positive"
    assert rows["mean"]["precision"] is None
    assert rows["mean"]["f1"] is not None
    assert rows["mean"]["note"] == "nothing called positive of fluid"


def test_a_constant_score_is_no_better_than_chance_and_has_no_silent_zero():
    targets, (classifier,) = targets_and_classifiers()
    classifier.predictions[:, 0], classifier.thresholds[0] = 0.4, np.nan
    row = rows_of(targets, [classifier])["fluid"]
    assert row["auroc"] == 0.5
    assert row["sensitivity"] is row["specificity"] is row["f1"] is None


def test_every_image_may_have_its_own_threshold():
    targets, (classifier,) = targets_and_classifiers()
    limits = np.where(np.arange(120)[:, None] < 60, 0.2, 0.8) * np.ones(3)
    row = rows_of(targets, [Judged(classifier.predictions, limits)])["fluid"]
    called = classifier.predictions[:, 0] >= limits[:, 0]
    assert row["accuracy"] == np.mean(called == targets[:, 0])
    assert row["threshold"] == pytest.approx(0.5)
    limits[3, 0] = np.nan
    assert rows_of(targets, [Judged(classifier.predictions, limits)])["fluid"]["accuracy"] is None

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mmcuda.evaluate.features import extract_features
from mmcuda.evaluate.label_efficiency import label_draws, score_encoder, score_probe
from mmcuda.evaluate.probe import fit_probe, out_of_fold
from mmcuda.models.encoder import build_encoder
from mmcuda.targets import Binary

COLUMNS = [
    *("pretraining", "label_fraction", "seed", "target", "kind", "auroc", "auroc_low", "auroc_high", *Binary.points),
    *("n_train", "n_test", "n_positive", "note"),
]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_encoder("darknet_tiny", 3, 32)


def study(encoder, readings, fractions=(0.1, 1.0), draws=2):
    return score_encoder(
        encoder,
        readings,
        pretraining="random",
        seed=0,
        label_fractions=fractions,
        draws=draws,
        bootstrap=50,
    )


def test_features_do_not_depend_on_the_batch(encoder, readings):
    images, rows = readings.images, np.arange(50)
    whole, parts = extract_features(encoder, images, rows), extract_features(encoder, images, rows, batch_size=7)
    np.testing.assert_allclose(whole, parts, atol=1e-5)


def test_rows_are_complete_and_intervals_hold_their_value(encoder, readings):
    rows = study(encoder, readings).tables.metrics
    targets = [*readings.targets, "mean"]
    assert [(row["label_fraction"], row["target"]) for row in rows] == [(f, t) for f in (0.1, 1.0) for t in targets]
    for row in rows:
        assert list(row) == COLUMNS
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]


def test_scores_at_full_labels_equal_scikit_learn_step_by_step(encoder, readings):
    cohort = readings
    result = study(encoder, readings)
    features, targets = extract_features(encoder, cohort.images, np.arange(len(cohort.images))), cohort.target_matrix
    scores = fit_probe(features[cohort.train], targets[cohort.train], cohort.kinds).predict(features[cohort.test])
    np.testing.assert_allclose(result.predictions[1.0], scores, atol=1e-6)
    rows = {row["target"]: row for row in result.tables.metrics if row["label_fraction"] == 1.0}
    for t, name in enumerate(cohort.targets):
        known = np.isfinite(targets[cohort.test, t])
        truth = targets[cohort.test, t][known]
        assert rows[name]["auroc"] == pytest.approx(roc_auc_score(truth, scores[known, t]))
        assert rows[name]["auprc"] == pytest.approx(average_precision_score(truth, scores[known, t]))
        assert rows[name]["n_train"] == np.isfinite(targets[cohort.train, t]).sum()
        assert rows[name]["n_test"] == known.sum()
    assert rows["mean"]["auroc"] == pytest.approx(np.mean([rows[name]["auroc"] for name in cohort.targets]))


def test_draws_differ_between_seeds_and_hold_whole_patients(readings):
    cohort = readings
    first, second = label_draws(cohort, 0.1, 2, 0)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, label_draws(cohort, 0.1, 1, 1)[0])
    assert len(np.unique(cohort.patients[first])) == round(0.1 * len(np.unique(cohort.patients[cohort.train])))
    assert np.array_equal(label_draws(cohort, 1.0, 3, 0), [cohort.train])


def test_thresholds_come_from_the_validation_split_and_without_one_from_out_of_fold_scores(readings):
    cohort = readings
    features = np.random.default_rng(0).normal(size=(len(cohort.images), 5)).astype(np.float32)
    targets, labelled, validation = cohort.target_matrix, cohort.train[100:], cohort.train[:100]
    probe = fit_probe(features[labelled], targets[labelled], cohort.kinds)

    given = score_probe(features, replace(cohort, split=replace(cohort.split, validation=validation)), labelled)
    np.testing.assert_array_equal(given.held_out, validation)
    np.testing.assert_array_equal(given.held_out_predictions, probe.predict(features[validation]))

    drawn = score_probe(features, cohort, labelled)
    np.testing.assert_array_equal(drawn.held_out, labelled)
    expected = out_of_fold(features[labelled], targets[labelled], cohort.patients[labelled], cohort.kinds)
    np.testing.assert_array_equal(drawn.held_out_predictions, expected)
    np.testing.assert_array_equal(drawn.test, given.test)


def test_a_target_without_both_classes_is_null_and_left_out_of_the_mean(encoder, readings):
    cohort = readings
    rare = np.zeros(len(cohort.images), np.float32)
    rare[cohort.test[:3]] = 1  # no positive in training
    cohort = cohort.with_labels(targets=cohort.targets | {"rare": rare})
    rows = study(encoder, cohort, (1.0,)).tables.metrics
    scores = {row["target"]: row["auroc"] for row in rows}
    assert scores["rare"] is None
    assert scores["mean"] == pytest.approx(np.mean([scores[name] for name in cohort.targets if name != "rare"]))

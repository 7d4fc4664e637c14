import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
)

from mmcuda.evaluate.threshold import choose_threshold, choose_thresholds, decision_metrics, exact_match
from mmcuda.targets import Binary


def scored(count=200, distinct=1000, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.3).astype(np.float32)
    scores = np.clip(0.25 * labels + rng.normal(0.4, 0.2, count), 0, 1)
    return np.round(scores * distinct) / distinct, labels


def youden(scores, labels, threshold):
    return balanced_accuracy_score(labels, scores >= threshold)


def f1(scores, labels, threshold):
    return f1_score(labels, scores >= threshold)


@pytest.mark.parametrize("distinct", [4, 20, 100_000])
@pytest.mark.parametrize(("rule", "gain"), [("youden", youden), ("f1", f1)])
def test_no_other_threshold_is_better(rule, gain, distinct):
    scores, labels = scored(distinct=distinct)
    chosen = choose_threshold(scores, labels, rule)
    others = np.append(np.unique(scores), 1.1)
    assert gain(scores, labels, chosen) == pytest.approx(max(gain(scores, labels, other) for other in others))


def test_the_threshold_lies_halfway_between_the_scores_that_it_parts():
    scores, labels = np.array([0.1, 0.2, 0.6, 0.9]), np.array([0, 0, 1, 1], np.float32)
    assert choose_threshold(scores, labels, "youden") == pytest.approx(0.4)
    assert choose_threshold(scores, labels, "f1") == pytest.approx(0.4)


@pytest.mark.parametrize("rule", ["youden", "f1"])
def test_where_nothing_can_be_chosen_there_is_no_threshold(rule):
    scores, labels = scored()
    assert np.isnan(choose_threshold(scores, np.zeros_like(labels), rule))
    assert np.isnan(choose_threshold(scores, np.ones_like(labels), rule))
    assert np.isnan(choose_threshold(np.full_like(scores, 0.3), labels, rule))
    assert np.isnan(choose_threshold(scores[:0], labels[:0], rule))
    assert np.isnan(choose_threshold(np.full_like(scores, np.nan), labels, rule))


def test_scores_that_are_upside_down_have_no_threshold():
    assert np.isnan(choose_threshold(np.array([0.8, 0.9, 0.1, 0.2]), np.array([0, 0, 1, 1], np.float32), "youden"))


def test_missing_labels_and_scores_do_not_count():
    scores, labels = scored()
    expected = choose_threshold(scores, labels, "youden")
    more_scores, more_labels = np.append(scores, [0.99, np.nan]), np.append(labels, np.float32([np.nan, 1]))
    assert choose_threshold(more_scores, more_labels, "youden") == expected
    both = choose_thresholds(
        dict.fromkeys("ab", Binary()), np.stack([scores, scores], 1), np.stack([labels, labels * np.nan], 1), "youden"
    )
    np.testing.assert_array_equal(both, [expected, np.nan])


def test_decisions_are_scored_as_scikit_learn_does():
    scores, labels = scored()
    called = scores >= 0.5
    found = decision_metrics(scores, labels, 0.5)
    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(labels, called),
            "balanced_accuracy": balanced_accuracy_score(labels, called),
            "precision": precision_score(labels, called),
            "sensitivity": recall_score(labels, called),
            "specificity": recall_score(labels, called, pos_label=0),
            "f1": f1_score(labels, called),
        }
    )


def test_a_score_at_the_threshold_is_positive():
    assert decision_metrics(np.array([0.5]), np.float32([1]), 0.5)["sensitivity"] == 1


def undefined(metrics):
    return {name for name, value in metrics.items() if np.isnan(value)}


def test_what_has_no_denominator_is_undefined_and_the_rest_is_not():
    scores, labels = scored()
    everything = set(decision_metrics(scores, labels, 0.5))
    assert undefined(decision_metrics(scores, labels, 0.5)) == set()
    assert undefined(decision_metrics(scores, labels, 1.1)) == {"precision"}  # nothing is called positive
    assert decision_metrics(scores, labels, 1.1)["f1"] == 0  # every positive is missed: that is a 0
    negatives, positives = labels == 0, labels == 1
    without_positives = decision_metrics(scores[negatives], labels[negatives], 0.5)
    assert undefined(without_positives) == {"sensitivity", "balanced_accuracy"}
    assert undefined(decision_metrics(scores[positives], labels[positives], 0.5)) == {
        "specificity",
        "balanced_accuracy",
    }
    assert undefined(decision_metrics(scores[negatives], labels[negatives], 1.1)) == {
        *("sensitivity", "balanced_accuracy", "precision", "f1")
    }
    assert undefined(decision_metrics(scores, labels, np.nan)) == everything
    assert undefined(decision_metrics(scores[:0], labels[:0], 0.5)) == everything


def test_exact_match_is_subset_accuracy_where_all_labels_are_known():
    rng = np.random.default_rng(0)
    scores, targets = rng.random((80, 3)), (rng.random((80, 3)) < 0.5).astype(np.float32)
    thresholds = np.array([0.3, 0.5, 0.7])
    assert exact_match(scores, targets, thresholds) == accuracy_score(targets, scores >= thresholds)


def test_exact_match_does_not_judge_missing_labels():
    scores = np.array([[0.9, 0.1], [0.9, 0.9], [0.9, 0.9], [0.2, 0.2]])
    targets = np.float32([[1, np.nan], [1, 0], [np.nan, np.nan], [0, 0]])
    assert exact_match(scores, targets, np.full(2, 0.5)) == pytest.approx(2 / 3)  # the third image does not count


def test_exact_match_is_undefined_without_a_decision_or_an_image():
    scores, targets = np.full((2, 2), 0.9), np.ones((2, 2), np.float32)
    assert np.isnan(exact_match(scores, targets, np.array([0.5, np.nan])))
    assert np.isnan(exact_match(scores * [1, np.nan], targets, np.full(2, 0.5)))
    assert np.isnan(exact_match(scores, targets * np.nan, np.full(2, 0.5)))
    assert np.isnan(exact_match(scores[:, :0], targets[:, :0], np.empty(0)))

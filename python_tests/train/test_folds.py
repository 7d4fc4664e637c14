import csv
import io

import numpy as np
import pytest

from mmcuda.errors import UserError
from mmcuda.evaluate.threshold import choose_threshold
from mmcuda.models.encoder import build_encoder
from mmcuda.train.config import PretrainJob
from mmcuda.train.finetune import finetune, predict
from mmcuda.train.finetune_config import FinetuneConfig
from mmcuda.train.folder import RunFolder
from mmcuda.train.folds import cross_validate, fold_rows, out_of_fold_table, patient_folds
from mmcuda.train.loop import make_accelerator

OPTIONS = FinetuneConfig(folds=3)


def test_folds_keep_patients_together_and_are_of_similar_size(readings):
    patients = readings.patients
    folds = patient_folds(patients, 3, seed=0)
    assert set(folds) == {1, 2, 3}
    assert all(len(set(folds[patients == patient])) == 1 for patient in np.unique(patients))
    assert np.bincount(folds)[1:].min() > len(patients) / 6
    assert np.array_equal(folds, patient_folds(patients, 3, seed=0))
    assert not np.array_equal(folds, patient_folds(patients, 3, seed=1))
    with pytest.raises(UserError, match="--folds must be at most the number of labelled patients, 2, got 3"):
        patient_folds(np.array(["a", "a", "b"]), 3, seed=0)


@pytest.fixture(scope="module")
def crossed(readings, tmp_path_factory):
    cohort = readings
    encoder = build_encoder("darknet_tiny", 3, 32)
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    fold_of = patient_folds(cohort.patients[cohort.train], 3, seed=0)
    setting = (make_accelerator("no"), folder, OPTIONS, encoder, PretrainJob(), cohort, cohort.train)
    return encoder, folder, cross_validate(*setting, fold_of, cohort.test)


def test_each_image_is_predicted_by_the_classifier_of_the_other_folds(crossed, readings, tmp_path):
    cohort = readings
    encoder, folder, result = crossed
    assert np.array_equal(result.rows, cohort.train)
    others = cohort.train[result.folds != 2]
    alone = finetune(make_accelerator("no"), RunFolder(tmp_path), OPTIONS, encoder, PretrainJob(), cohort, others)
    inside = result.folds == 2
    np.testing.assert_array_equal(result.predictions[inside], predict(alone, cohort, cohort.train[inside]))
    assert result.test_predictions.shape == (len(cohort.test), 4)
    assert [folder.checkpoint(f"{OPTIONS.name}-fold{fold}").exists() for fold in (1, 2, 3)] == [True] * 3


def test_metrics_are_of_each_fold_and_of_all_pooled(crossed, readings):
    cohort = readings
    result = crossed[2]
    rows = fold_rows({"pretraining": "clinical", "label_fraction": 1.0, "seed": 0}, result, cohort, 5, "youden")
    names = [*cohort.targets, "mean"]
    assert [(row["fold"], row["target"]) for row in rows] == [(f, n) for f in (1, 2, 3, "pooled") for n in names]
    by_fold = {row["fold"]: row for row in rows if row["target"] == "malignancy"}
    assert sum(by_fold[fold]["n_test"] for fold in (1, 2, 3)) == by_fold["pooled"]["n_test"]
    labelled = np.isfinite(cohort.targets["malignancy"][result.rows]).sum()
    assert by_fold["pooled"]["n_train"] == pytest.approx(labelled * 2 / 3)
    assert by_fold[1]["n_train"] == labelled - by_fold[1]["n_test"]


def test_a_fold_is_decided_at_the_threshold_that_the_other_folds_choose(crossed, readings):
    cohort = readings
    result = crossed[2]
    rows = fold_rows({"pretraining": "clinical", "label_fraction": 1.0, "seed": 0}, result, cohort, 5, "youden")
    by_fold = {row["fold"]: row for row in rows if row["target"] == "malignancy"}
    t, others = list(cohort.targets).index("malignancy"), result.folds != 2
    labels = cohort.targets["malignancy"][result.rows]
    expected = choose_threshold(result.predictions[others, t], labels[others], "youden")
    assert by_fold[2]["threshold"] == pytest.approx(expected)
    tested = [by_fold[fold]["n_test"] for fold in (1, 2, 3)]
    accuracies = [by_fold[fold]["accuracy"] for fold in (1, 2, 3)]
    assert by_fold["pooled"]["accuracy"] == pytest.approx(np.average(accuracies, weights=tested))


def test_out_of_fold_predictions_are_a_table(crossed, readings):
    cohort = readings
    result = crossed[2]
    table = list(csv.DictReader(io.StringIO(out_of_fold_table(result, cohort))))
    assert len(table) == len(result.rows)
    row, position = table[9], result.rows[9]
    assert (row["image"], row["patient"]) == (cohort.table.image_names[position], cohort.patients[position])
    assert int(row["fold"]) == result.folds[9]
    assert float(row["lobulation.probability"]) == pytest.approx(result.predictions[9, 2])
    assert float(row["lobulation.label"]) == cohort.target_matrix[position, 2]

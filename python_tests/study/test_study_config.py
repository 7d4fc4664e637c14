import pytest

from mmcuda.errors import UserError
from mmcuda.study.arms import expand, meaning
from mmcuda.study.cells import Cell, all_cells, encoder_job, make_tasks
from mmcuda.study.config import StudyConfig
from mmcuda.train.config import EncoderConfig, EvaluateConfig, PretrainConfig
from mmcuda.train.config_file import load_config, save_config
from mmcuda.train.finetune_config import FinetuneConfig

LABELS = ["bcva", "DRT/ME"]


def test_the_default_arms_are_spelt_out_for_a_cohort(tmp_path):
    weights = EncoderConfig(weights=tmp_path / "weights.safetensors")
    assert StudyConfig(encoder=weights).with_labels(LABELS).arms == (
        *("random", "imagenet", "simclr", "supervised", "clinical-input", "shuffled"),
        *("clinical:bcva", "clinical:DRT/ME", "clinical"),
    )
    assert "imagenet" not in StudyConfig().with_labels(LABELS).arms
    assert all(meaning(arm) for arm in StudyConfig(encoder=weights).with_labels(LABELS).arms)


def test_without_clinical_labels_the_arms_that_need_them_are_refused():
    assert expand(["simclr", "clinical:each"], [], imagenet=False) == ["simclr"]
    with pytest.raises(UserError, match="the arm shuffled needs clinical labels"):
        expand(["shuffled"], [], imagenet=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": ("simclr", "simclr")}, "--arms must be one or more different names"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"processes": 0}, "--processes must be at least 1"),
        ({"baseline": "clinical:each"}, "--baseline must be one arm"),
        ({"supervised": FinetuneConfig(mode="full", folds=3)}, "--supervised.folds has no meaning in a study"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(UserError, match=message):
        StudyConfig(**options)


def test_a_configuration_survives_the_file(tmp_path):
    config = StudyConfig(arms=("simclr", "clinical:DRT/ME"), supervised=FinetuneConfig(mode="full", epochs=3))
    save_config(config, tmp_path / "config.yaml")
    assert load_config(StudyConfig, tmp_path / "config.yaml") == config


def test_what_reads_one_encoder_is_one_task_and_training_from_scratch_one_a_cell():
    config = StudyConfig(
        arms=("simclr", "supervised", "clinical-input", "clinical:bcva"),
        seeds=2,
        evaluate=EvaluateConfig(label_fractions=(0.1, 1.0)),
    )
    cells = all_cells(config)
    assert len(set(cells)) == 4 * 2 * 2
    tasks = make_tasks(config, cells)
    names = [(task.encoder.name, len(task.cells)) for task in tasks]
    assert names[:4] == [("simclr-seed0", 4), ("random-seed0", 1), ("random-seed0", 1), ("clinical-bcva-seed0", 2)]
    assert len(tasks) == 8
    assert [cell for task in tasks for cell in task.cells if cell.arm == "supervised"] == [
        Cell("supervised", fraction, seed) for seed in (0, 1) for fraction in (0.1, 1.0)
    ]


def test_only_imagenet_starts_from_the_weights(tmp_path):
    encoder = EncoderConfig("resnet18", weights=tmp_path / "weights.safetensors")
    config = StudyConfig(encoder=encoder, pretrain=PretrainConfig(epochs=5))
    jobs = {arm: encoder_job(config, Cell(arm, 1.0, 3)) for arm in config.with_labels(LABELS).arms}
    assert {arm for arm, job in jobs.items() if job.start.starts_trained} == {"imagenet"}
    assert {job.pretrain.epochs for job in jobs.values()} == {5}
    assert jobs["clinical:DRT/ME"].labels == ("DRT/ME",)
    assert jobs["clinical-input"] == jobs["simclr"]

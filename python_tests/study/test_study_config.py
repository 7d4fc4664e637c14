import pytest

from mmcuda.errors import UserError
from mmcuda.methods import Clinical, Random, Shuffled, SimCLR
from mmcuda.study.arms import EACH, SHOWN, baseline_of, expand, parse_arm, subject_of
from mmcuda.study.cells import Cell, all_cells, encoder_job, name_tasks
from mmcuda.study.config import StudyConfig, TrainConfig
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
    assert all(parse_arm(arm).meaning for arm in StudyConfig(encoder=weights).with_labels(LABELS).arms)


def test_without_clinical_labels_the_arms_that_need_them_are_refused():
    assert expand(["simclr", "clinical:each"], [], given_weights=False) == ["simclr"]
    with pytest.raises(UserError, match="the arm shuffled needs clinical labels"):
        expand(["shuffled"], [], given_weights=False)


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
    config = StudyConfig(
        arms=("simclr", "clinical:DRT/ME"),
        methods={"clinical": Clinical(temperature=0.5), "simclr": SimCLR(projection_size=16)},
        supervised=FinetuneConfig(mode="full", epochs=3),
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(StudyConfig, tmp_path / "config.yaml") == config


def test_what_reads_one_encoder_is_one_task_and_training_from_scratch_one_a_cell():
    config = StudyConfig(
        arms=("simclr", "supervised", "clinical-input", "simclr+finetune", "clinical:bcva"),
        seeds=2,
        evaluate=EvaluateConfig(label_fractions=(0.1, 1.0)),
    )
    cells = all_cells(config)
    assert len(set(cells)) == 5 * 2 * 2
    tasks = name_tasks(config, cells).values()
    names = [(task.encoder.name, len(task.cells)) for task in tasks]
    assert names[:4] == [("simclr-seed0", 6), ("random-seed0", 1), ("random-seed0", 1), ("clinical-bcva-seed0", 2)]
    assert len(tasks) == 8
    assert [cell for task in tasks for cell in task.cells if cell.arm == "supervised"] == [
        Cell("supervised", fraction, seed) for seed in (0, 1) for fraction in (0.1, 1.0)
    ]


def test_only_imagenet_starts_from_the_weights(tmp_path):
    encoder = EncoderConfig("resnet18", weights=tmp_path / "weights.safetensors")
    config = StudyConfig(encoder=encoder, pretrain=PretrainConfig(epochs=5)).with_labels(LABELS)
    jobs = {arm: encoder_job(config, Cell(arm, 1.0, 3)) for arm in config.arms}
    assert {arm for arm, job in jobs.items() if job.start.starts_trained} == {"imagenet"}
    assert {job.pretrain.epochs for job in jobs.values()} == {5}
    assert jobs["clinical:DRT/ME"].method.labels == ("DRT/ME",)
    assert jobs["clinical-input"] == jobs["simclr"]
    config = TrainConfig(encoder=encoder).with_labels(LABELS)
    jobs = {arm: encoder_job(config, Cell(arm, 1.0, 3)) for arm in config.arms}
    assert {arm for arm, job in jobs.items() if not job.start.starts_trained} == {"random"}


def test_an_arm_is_a_method_a_label_and_a_readout():
    for name in (
        "simclr",
        "clinical:CD4+",
        "clinical:a+b+finetune",
        "shuffled+values",
        "clinical:each",
        "random+finetune",
    ):
        assert parse_arm(name).name == name
    assert parse_arm("clinical:CD4+").label == "CD4+"
    assert parse_arm("clinical:a+b+finetune").label == "a+b"
    assert parse_arm("clinical:each").label == EACH
    assert parse_arm("random+scratch").name == "supervised"
    assert parse_arm("simclr+values").name == "clinical-input"
    assert parse_arm("simclr+probe").name == "simclr"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("simlcr", r"arms must be among random, .* got simlcr: did you mean simclr\?"),
        (
            "simclr+fintune",
            r"arms: simclr\+fintune must have a readout of probe, .* got fintune: did you mean finetune",
        ),
        ("simclr:cst", "arms: simclr:cst must be without a label, simclr learns from none; clinical, shuffled do"),
        ("simclr+scratch", r"arms: simclr\+scratch would not read what simclr gives"),
    ],
)
def test_an_arm_that_there_is_not_is_told(name, message):
    with pytest.raises(UserError, match=message):
        parse_arm(name)


def test_a_control_has_the_options_of_what_it_controls():
    config = StudyConfig(arms=("clinical", "shuffled"), methods={"clinical": Clinical(temperature=0.5)})
    assert encoder_job(config, Cell("shuffled", 1.0, 0)).method == Shuffled(temperature=0.5)
    assert list(StudyConfig(arms=("shuffled", "supervised")).methods) == ["clinical", "random"]
    assert StudyConfig(arms=("random",)).methods == {"random": Random()}


def test_roles_choose_order_subject_and_baseline():
    def roles(*names):
        arms = sorted(map(parse_arm, names), key=lambda arm: arm.place(SHOWN))
        baseline = baseline_of(arms)
        return [arm.name for arm in arms], subject_of(arms, None).name, baseline and baseline.name

    names = ("clinical+finetune", "clinical", "shuffled", "supervised", "simclr", "imagenet", "random")
    shown = ["random", "imagenet", "simclr", "supervised", "shuffled", "clinical", "clinical+finetune"]
    assert roles(*names) == (shown, "clinical", "simclr")
    assert roles("simclr", "random")[1:] == ("simclr", "random")
    assert roles("random")[1:] == ("random", None)
    assert StudyConfig(arms=("random", "clinical")).with_labels(LABELS).baseline == "random"

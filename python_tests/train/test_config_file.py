from pathlib import Path

import pytest

from mmcuda.data import Augment, DataConfig
from mmcuda.errors import UserError
from mmcuda.study.config import TrainConfig
from mmcuda.train.config import EvaluateConfig, PretrainConfig
from mmcuda.train.config_file import check_same, load_config, save_config

CONFIG = TrainConfig(
    arms=("clinical",),
    data=DataConfig(cache_dir=Path("somewhere")),
    augment=Augment(rotation=10.0),
    pretrain=PretrainConfig(precision="bf16", learning_rate=3e-5),
    evaluate=EvaluateConfig(label_fractions=(0.5,)),
)


def test_a_configuration_survives_the_file(tmp_path):
    save_config(CONFIG, tmp_path / "config.yaml")
    assert load_config(TrainConfig, tmp_path / "config.yaml") == CONFIG


def test_a_different_option_is_named(tmp_path):
    now = TrainConfig(arms=("clinical",), pretrain=PretrainConfig(epochs=3))
    with pytest.raises(UserError, match=r"cannot resume with --pretrain.epochs 3: the run has \d+ in config.yaml"):
        check_same(Path("config.yaml"), TrainConfig(arms=("clinical",)), now)


def test_another_cache_folder_is_no_difference():
    check_same(Path("config.yaml"), TrainConfig(), TrainConfig(data=DataConfig(cache_dir=Path("elsewhere"))))


@pytest.mark.parametrize("text", ["seeds: many", "sedes: 3", "[", "seeds: 0"])
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config.yaml is not a valid|--seeds must be at least 1"):
        load_config(TrainConfig, path)


def test_a_clinical_label_left_out_is_a_difference():
    both, one = ({"bcva": "equal", "cst": {"within": 25.0}}, {"bcva": "equal"})
    saved, now = (TrainConfig(data=DataConfig(source="table", clinical=rules)) for rules in (both, one))
    with pytest.raises(UserError, match=r"--data.clinical.cst.within None: the run has 25.0"):
        check_same(Path("config.yaml"), saved, now)


@pytest.mark.parametrize(
    "clinical", [{"bcva": "equal", "cst": {"within": 25.0, "weight": 2.0}}, ("bcva",), "auto", None]
)
def test_clinical_rules_survive_the_file(tmp_path, clinical):
    config = TrainConfig(data=DataConfig(source="table", file=Path("cohort.csv"), clinical=clinical))
    save_config(config, tmp_path / "config.yaml")
    assert load_config(TrainConfig, tmp_path / "config.yaml") == config
    assert config.data.file.is_absolute()

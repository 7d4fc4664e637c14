from pathlib import Path

import pytest

from mmcuda.data import DataConfig
from mmcuda.errors import UserError
from mmcuda.methods import Clinical, ImageNet, SimCLR
from mmcuda.study.config import TrainConfig
from mmcuda.train.config import (
    EncoderConfig,
    EvaluateConfig,
    PretrainConfig,
    PretrainJob,
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DataConfig(test_fraction=1.0), "--data.test_fraction must be between 0 and 1, got 1"),
        (lambda: DataConfig(image_size=4), "--data.image_size must be at least 8, got 4"),
        (lambda: PretrainConfig(epochs=0), "--pretrain.epochs must be at least 1, got 0"),
        (lambda: PretrainConfig(warmup=1.1), "--pretrain.warmup must be in 0..1, got 1.1"),
        (lambda: Clinical(temperature=0.0), "clinical.temperature must be positive and finite, got 0"),
        (lambda: SimCLR(projection_size=0), "simclr.projection_size must be at least 1, got 0"),
        (lambda: Clinical(balance=("cst",)), "clinical.balance needs clinical.sampler class_aware, got shuffled"),
        (lambda: PretrainConfig(learning_rate=float("nan")), "--pretrain.learning_rate must be positive and finite"),
        (lambda: EvaluateConfig(label_fractions=(0.0, 1.0)), "label_fractions must be fractions"),
        (lambda: EvaluateConfig(label_fractions=(0.1, 0.1)), "label_fractions must differ"),
        (lambda: EvaluateConfig(draws=0), "draws must be at least 1, got 0"),
        (lambda: PretrainJob(seed=-1), "--seed must be at least 0, got -1"),
        (lambda: PretrainJob(ImageNet()), "imagenet needs weights: give --encoder.weights FILE"),
        (lambda: TrainConfig(arms=("imagenet",)), "the arm imagenet needs --encoder.weights FILE"),
        (
            lambda: EncoderConfig(pretrained=True, weights=Path("w.safetensors")),
            "--encoder.weights and --encoder.pretrained exclude each other",
        ),
        (lambda: TrainConfig(arms=("clinical", "clinical")), "--arms must be one or more different"),
        (lambda: TrainConfig(seeds=0), "--seeds must be at least 1, got 0"),
    ],
)
def test_a_value_out_of_range_names_its_option(build, message):
    with pytest.raises(UserError) as error:
        build()
    assert str(error.value).startswith(message)


def test_a_job_is_named_after_its_labels():
    assert PretrainJob(Clinical(labels=("DRT/ME", "CST a")), 1).name == "clinical-DRT%2FME-CST a-seed1"

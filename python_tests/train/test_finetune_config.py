import pytest

from mmcuda.errors import UserError
from mmcuda.train.finetune_config import FinetuneConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_fraction": 1.5}, "--label_fraction must be in 0..1, above 0, got 1.5"),
        ({"validation_fraction": 1.0}, "--validation_fraction must be between 0 and 1, got 1"),
        ({"folds": 1}, "--folds must be 0 or at least 2, got 1"),
        ({"patience": 3}, "--patience needs epochs: choose --mode linear, full or linear_full, got logistic"),
        ({"focal_gamma": 2.0}, "--focal_gamma needs gradient descent: choose --mode linear or full, got logistic"),
        ({"focal_gamma": -1.0, "mode": "full"}, "--focal_gamma must be in 0..10, got -1"),
        ({"layer_decay": 0.0}, "--layer_decay must be in 0..1, above 0, got 0"),
        ({"head_learning_rate": float("inf")}, "--head_learning_rate must be positive and finite, got inf"),
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
    ],
)
def test_an_option_out_of_range_is_named(options, message):
    with pytest.raises(UserError) as error:
        FinetuneConfig(**options)
    assert str(error.value) == message

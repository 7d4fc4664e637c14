import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from mmcuda.targets import Binary
from mmcuda.train.target_loss import TargetLoss

TARGETS = torch.tensor([[1, 0, 1], [torch.nan, 0, 0], [0, 1, torch.nan], [0, torch.nan, 0], [0, 0, torch.nan]])
LABELLED = TARGETS.isfinite()


@pytest.fixture
def logits():
    return (3 * torch.randn(TARGETS.shape)).requires_grad_()


def criterion(loss="bce", class_weights="none", focal_gamma=0.0):
    return TargetLoss(loss, class_weights, focal_gamma, dict.fromkeys("abc", Binary()), TARGETS.numpy())


def test_bce_is_the_mean_over_labelled_cells(logits):
    value = criterion()(logits, TARGETS)
    torch.testing.assert_close(value, F.binary_cross_entropy_with_logits(logits[LABELLED], TARGETS[LABELLED]))
    value.backward()
    assert torch.equal(logits.grad != 0, LABELLED)


def test_ce_is_the_mean_over_targets_of_the_cross_entropy_of_two_logits(logits):
    of_targets = []
    for column, labels in zip(logits.T, TARGETS.T, strict=True):
        two = torch.stack([torch.zeros_like(column), column], dim=1)[labels.isfinite()]
        of_targets.append(F.cross_entropy(two, labels[labels.isfinite()].long()))
    torch.testing.assert_close(criterion("ce")(logits, TARGETS), torch.stack(of_targets).mean())


def test_ce_does_not_count_a_target_without_labels_in_the_batch(logits):
    targets = TARGETS.clone()
    targets[:, 1] = torch.nan
    others = TargetLoss("ce", "none", 0.0, dict.fromkeys("ab", Binary()), TARGETS[:, [0, 2]].numpy())
    torch.testing.assert_close(criterion("ce")(logits, targets), others(logits[:, [0, 2]], TARGETS[:, [0, 2]]))


def test_focal_loss_is_that_of_torchvision(logits):
    expected = sigmoid_focal_loss(logits[LABELLED], TARGETS[LABELLED], alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(criterion(focal_gamma=2.0)(logits, TARGETS), expected)


def test_balanced_weights_are_those_of_scikit_learn(logits):
    weighted = torch.zeros_like(TARGETS)
    for t, column in enumerate(TARGETS.T):
        labels = column[column.isfinite()].numpy()
        negative, positive = compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=labels)
        weighted[:, t] = torch.where(column == 1, positive, negative)
    cells = F.binary_cross_entropy_with_logits(logits[LABELLED], TARGETS[LABELLED], reduction="none")
    expected = (cells * weighted[LABELLED]).mean()
    torch.testing.assert_close(criterion(class_weights="balanced")(logits, TARGETS), expected)


@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_without_any_label_the_loss_and_its_gradient_are_zero(loss, logits):
    value = criterion(loss, "balanced", 2.0)(logits, torch.full_like(TARGETS, torch.nan))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_have_a_finite_gradient(gamma):
    logits = torch.tensor([[500.0, -500.0, 500.0]], requires_grad=True)
    criterion(focal_gamma=gamma)(logits, torch.tensor([[1.0, 1.0, 0.0]])).backward()
    assert logits.grad.isfinite().all()

import pytest
import torch
import torch.nn.functional as F

from mmcuda.models.encoder import build_encoder
from mmcuda.models.heads import Classifier, ContrastiveModel, masked_bce


def test_projections_are_normalised_and_keep_samples_and_views_apart():
    model = ContrastiveModel(build_encoder("darknet_tiny", 3, 32), 16, 8).eval()
    views = torch.rand(3, 2, 3, 16, 16)
    projections = model(views)
    assert projections.shape == (3, 2, 8)
    torch.testing.assert_close(projections.norm(dim=-1), torch.ones(3, 2))
    torch.testing.assert_close(projections[:, 1], model(views[:, 1:])[:, 0])


def test_classifier_gives_a_logit_per_target():
    assert Classifier(build_encoder("darknet_tiny", 1, 32), 5)(torch.rand(4, 1, 16, 16)).shape == (4, 5)


def test_masked_bce_is_the_mean_over_labelled_cells():
    logits = torch.randn(3, 2, requires_grad=True)
    targets = torch.tensor([[1.0, torch.nan], [torch.nan, 0.0], [0.0, torch.nan]])
    labelled = targets.isfinite()
    loss = masked_bce(logits, targets)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[labelled], targets[labelled]))
    loss.backward()
    assert torch.equal(logits.grad != 0, labelled)


def test_masked_bce_without_any_label_is_zero_with_a_zero_gradient():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = masked_bce(logits, torch.full((3, 2), torch.nan))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 2))


def test_an_encoder_that_is_not_of_timm_is_refused():
    with pytest.raises(ValueError, match="encoder must be a timm model with num_features, got Linear"):
        Classifier(torch.nn.Linear(3, 4), 2)

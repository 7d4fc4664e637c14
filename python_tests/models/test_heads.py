import copy

import pytest
import torch

from mmcuda import SupConLoss
from mmcuda.models.encoder import build_encoder
from mmcuda.models.heads import Classifier, ContrastiveModel
from mmcuda.targets import Binary


def test_projections_are_normalised_and_keep_samples_and_views_apart():
    model = ContrastiveModel(build_encoder("darknet_tiny", 3, 32), 16, 8, SupConLoss()).eval()
    views = torch.rand(3, 2, 3, 16, 16)
    projections = model(views)
    assert projections.shape == (3, 2, 8)
    torch.testing.assert_close(projections.norm(dim=-1), torch.ones(3, 2))
    torch.testing.assert_close(projections[:, 1], model(views[:, 1:])[:, 0])


def test_classifier_gives_a_logit_per_target():
    classifier = Classifier(build_encoder("darknet_tiny", 1, 32), dict.fromkeys(["drusen", "fluid", "foci"], Binary()))
    assert classifier(torch.rand(4, 1, 16, 16)).shape == (4, 3)


def test_a_frozen_encoder_keeps_weights_and_batch_norm_statistics_in_training_mode():
    classifier = Classifier(build_encoder("darknet_tiny", 1, 32), {"drusen": Binary()}, frozen=True).train()
    before = copy.deepcopy(classifier.encoder.state_dict())
    classifier(torch.rand(4, 1, 16, 16)).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.encoder.state_dict().items())
    assert [name for name, p in classifier.named_parameters() if p.grad is not None] == ["linear.weight", "linear.bias"]
    again = Classifier(classifier.encoder, {"drusen": Binary()})  # the same encoder, no longer frozen
    assert again.train().encoder.training
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_a_classifier_may_keep_the_statistics_of_batch_norm_and_train_the_rest():
    classifier = Classifier(build_encoder("darknet_tiny", 1, 32), {"drusen": Binary()}, keep_statistics=True).train()
    images = torch.rand(4, 1, 16, 16)
    before = copy.deepcopy(classifier.encoder.state_dict())
    logits = classifier(images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.encoder.state_dict().items())
    assert torch.equal(classifier.eval()(images), logits)
    logits.sum().backward()
    assert classifier.encoder.stem.conv1.conv.weight.grad.abs().sum() > 0


def test_an_encoder_that_is_not_of_timm_is_refused():
    with pytest.raises(ValueError, match="encoder must be a timm model with num_features, got Linear"):
        Classifier(torch.nn.Linear(3, 4), {"drusen": Binary()})

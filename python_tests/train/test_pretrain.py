import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from mmcuda import ClinicalSupConLoss, SupConLoss
from mmcuda.errors import UserError
from mmcuda.models.encoder import build_encoder
from mmcuda.models.heads import ContrastiveModel
from mmcuda.models.storage import load_encoder
from mmcuda.train.config import EncoderConfig, PretrainConfig, PretrainJob
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import make_accelerator
from mmcuda.train.pretrain import contrastive_labels, contrastive_loss, pretrain, training_set


def table(labels):
    """Sorted rows of labels, missing as -1."""
    rows = torch.stack(list(labels.values()), dim=1).nan_to_num(-1).tolist()
    return sorted(rows), rows


def test_clinical_labels_are_those_of_the_training_images(readings):
    cohort, split = readings
    labels = contrastive_labels(PretrainJob("clinical"), cohort, split)
    for name, label in cohort.clinical.items():
        np.testing.assert_array_equal(labels[name].numpy(), label.values[split.train])


def test_one_label_is_learnt_alone(readings):
    cohort, split = readings
    job = PretrainJob("clinical", labels=("diameter",))
    assert list(contrastive_labels(job, cohort, split)) == ["diameter"]
    model = ContrastiveModel(build_encoder("darknet_tiny", 3, 32), 16, 8).eval()
    batch = training_set(job, cohort, split).batch(np.arange(32), torch.Generator(), torch.device("cpu"))
    alone = cohort.with_labels(clinical={"diameter": cohort.clinical["diameter"]})
    losses = [contrastive_loss(*case)(model, batch) for case in ((job, cohort), (PretrainJob("clinical"), alone))]
    assert losses[0] == losses[1]


def test_an_unknown_label_is_named(readings, tmp_path):
    job = PretrainJob("clinical", labels=("diametre",))
    with pytest.raises(UserError, match=r"--labels must be among .* got diametre: did you mean diameter\?"):
        pretrain(make_accelerator("no"), RunFolder(tmp_path), job, *readings)
    bare = readings[0].with_labels(clinical={})
    with pytest.raises(UserError, match="clinical pretraining needs clinical labels, got none"):
        pretrain(make_accelerator("no"), RunFolder(tmp_path), PretrainJob("clinical"), bare, readings[1])


def test_shuffling_moves_whole_rows_to_other_images(readings):
    clinical = table(contrastive_labels(PretrainJob("clinical"), *readings))
    shuffled = table(contrastive_labels(PretrainJob("shuffled"), *readings))
    assert shuffled[0] == clinical[0]
    assert np.mean([a == b for a, b in zip(shuffled[1], clinical[1], strict=True)]) < 0.2


@pytest.mark.parametrize("method", ["clinical", "shuffled", "simclr"])
def test_the_loss_is_that_of_the_two_augmented_views(readings, method):
    cohort, split = readings
    job = PretrainJob(method)
    model = ContrastiveModel(build_encoder("darknet_tiny", 3, 32), 16, 8).eval()
    batch = training_set(job, cohort, split).batch(np.arange(32), torch.Generator().manual_seed(0), torch.device("cpu"))
    loss = contrastive_loss(job, cohort)(model, batch)

    generator = torch.Generator().manual_seed(0)
    features = model(job.augment(torch.from_numpy(cohort.images[split.train[:32]]), 2, generator))
    if method == "simclr":
        tau = job.pretrain.simclr_temperature
        expected = SupConLoss(tau, base_temperature=tau, impl="reference")(features)
    else:
        tau = job.pretrain.temperature
        relations = {name: label.relation for name, label in cohort.clinical.items()}
        weights = {name: label.weight for name, label in cohort.clinical.items()}
        expected = ClinicalSupConLoss(relations, weights, tau, base_temperature=tau, impl="reference")(
            features, batch.labels
        )
    torch.testing.assert_close(loss, expected)


def test_the_untrained_encoder_has_a_checkpoint_and_no_log(readings, tmp_path):
    folder, job = RunFolder(tmp_path), PretrainJob("random", seed=4)
    pretrain(make_accelerator("no"), folder, job, *readings)
    first = load_encoder(folder.checkpoint(job.name))
    assert not folder.log(job.name).exists()
    again = tmp_path / "again"
    pretrain(make_accelerator("no"), RunFolder(again), job, *readings)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(first(images), load_encoder(RunFolder(again).checkpoint(job.name))(images))


def test_imagenet_is_the_encoder_of_the_weights_and_random_is_not(readings, tmp_path):
    torch.manual_seed(1)
    original = timm.create_model("test_resnet").eval()
    weights = tmp_path / "resnet.safetensors"
    save_file(original.state_dict(), weights)
    images, mean, std = torch.rand(2, 3, 32, 32), *(torch.tensor(original.pretrained_cfg[k]) for k in ("mean", "std"))
    expected = original.forward_head(
        original.forward_features((images - mean.view(3, 1, 1)) / std.view(3, 1, 1)), pre_logits=True
    )
    for method in ("imagenet", "random"):
        job = PretrainJob(method, encoder=EncoderConfig("test_resnet", weights=weights))
        pretrain(make_accelerator("no"), RunFolder(tmp_path), job, *readings)
        features = load_encoder(RunFolder(tmp_path).checkpoint(job.name))(images)
        assert torch.allclose(features, expected, atol=1e-5) == (method == "imagenet")


def test_class_aware_batches_hold_positives_of_the_chosen_labels(readings):
    cohort, split = readings
    options = PretrainConfig(batch_size=32, sampler="class_aware", balance=("diameter",))
    data = training_set(PretrainJob("clinical", pretrain=options), cohort, split)
    assert data.balance == {"diameter": cohort.clinical["diameter"].relation.tolerance}
    values = data.labels["diameter"].numpy()
    near = abs(values[:, None] - values) <= data.balance["diameter"]
    has_any = near.sum(axis=1) > 1
    for positions in data.epoch(32, seed=0):
        found = near[np.ix_(positions, positions)].sum(axis=1) > 1
        assert found[has_any[positions]].all()


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (PretrainJob("simclr", pretrain=PretrainConfig(sampler="class_aware")), set()),
        (PretrainJob("clinical", pretrain=PretrainConfig(sampler="shuffled")), set()),
        (PretrainJob("clinical", pretrain=PretrainConfig(sampler="class_aware"), labels=("margin",)), {"margin"}),
    ],
)
def test_only_labels_that_are_learnt_from_are_balanced(readings, job, expected):
    assert set(training_set(job, *readings).balance) == expected


def test_a_label_to_balance_must_exist(readings, tmp_path):
    options = PretrainConfig(sampler="class_aware", balance=("diametre",))
    job = PretrainJob("clinical", pretrain=options)
    with pytest.raises(UserError, match=r"--pretrain.balance must be among .* got diametre: did you mean diameter\?"):
        pretrain(make_accelerator("no"), RunFolder(tmp_path), job, *readings)
    with pytest.raises(UserError, match=r"--pretrain.balance needs --pretrain.sampler class_aware, got shuffled"):
        PretrainConfig(balance=("diameter",))

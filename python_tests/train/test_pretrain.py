import pytest
import timm
import torch
from safetensors.torch import save_file

from mmcuda.errors import UserError
from mmcuda.methods import Clinical, ImageNet, Random
from mmcuda.models.storage import load_encoder
from mmcuda.train.config import EncoderConfig, PretrainConfig, PretrainJob
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import make_accelerator
from mmcuda.train.pretrain import pretrain


def test_what_the_method_lacks_is_told_before_anything_is_written(readings, tmp_path):
    job = PretrainJob(Clinical(labels=("diametre",)))
    with pytest.raises(UserError, match=r"clinical.labels must be among .* got diametre: did you mean diameter\?"):
        pretrain(make_accelerator("no"), RunFolder(tmp_path), job, readings)
    assert list(tmp_path.iterdir()) == []


def test_the_untrained_encoder_has_a_checkpoint_and_no_log(readings, tmp_path):
    folder, job = RunFolder(tmp_path), PretrainJob(Random(), seed=4)
    pretrain(make_accelerator("no"), folder, job, readings)
    first = load_encoder(folder.checkpoint(job.name))
    assert not folder.log(job.name).exists()
    again = tmp_path / "again"
    pretrain(make_accelerator("no"), RunFolder(again), job, readings)
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
    for method in (ImageNet(), Random()):
        job = PretrainJob(method, encoder=EncoderConfig("test_resnet", weights=weights))
        pretrain(make_accelerator("no"), RunFolder(tmp_path), job, readings)
        features = load_encoder(RunFolder(tmp_path).checkpoint(job.name))(images)
        assert torch.allclose(features, expected, atol=1e-5) == (method == ImageNet())


def test_after_every_step_the_method_gets_the_model(readings, tmp_path):
    seen = []

    class Watched(Clinical):
        def after_step(self, model):
            seen.append(hasattr(model, "encoder"))

    job = PretrainJob(Watched(), pretrain=PretrainConfig(epochs=1, batch_size=256))
    pretrain(make_accelerator("no"), RunFolder(tmp_path), job, readings)
    assert seen == [True] * (len(readings.train) // 256)

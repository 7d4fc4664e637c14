from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mmcuda.errors import UserError
from mmcuda.models.encoder import build_encoder, check_encoder
from mmcuda.models.heads import feature_size


@pytest.mark.parametrize("name", ["darknet_tiny", "resnet18", "mobilenetv3_small_050"])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_have_the_announced_size(name, channels):
    encoder = build_encoder(name, channels, 32).eval()
    assert encoder(torch.rand(2, channels, 32, 32)).shape == (2, feature_size(encoder))


def test_the_default_encoder_is_small():
    encoder = build_encoder("darknet_tiny", 3, 32)
    assert sum(p.numel() for p in encoder.parameters()) < 300_000
    assert encoder.forward_features(torch.rand(1, 3, 64, 64)).shape == (1, 128, 4, 4)


def test_an_unknown_name_gets_close_matches():
    with pytest.raises(UserError, match=r"--encoder.name .* got 'resnet19': did you mean resnet18"):
        check_encoder("resnet19", pretrained=False, image_size=32)


def test_a_transformer_is_built_for_the_image_size():
    encoder = build_encoder("vit_tiny_patch16_224", 3, 32).eval()
    assert encoder(torch.rand(1, 3, 32, 32)).shape == (1, 192)


def test_an_encoder_that_cannot_take_the_images_is_refused():
    with pytest.raises(UserError, match=r"--encoder.name inception_v3 does not take images of --data.image_size 32"):
        check_encoder("inception_v3", pretrained=False, image_size=32)


def test_missing_pretrained_weights_are_told_before_anything_is_built():
    with pytest.raises(UserError, match=r"--encoder.pretrained: darknet_tiny has no pretrained weights"):
        check_encoder("darknet_tiny", pretrained=True, image_size=32)


@pytest.fixture
def weights(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_weights_of_colour_images_are_adapted_to_the_channels(weights):
    build_encoder("test_resnet", 1, 32, weights=weights)
    check_encoder("test_resnet", pretrained=False, image_size=32, weights=weights)
    grey, colour = torch.rand(2, 1, 32, 32), build_encoder("test_resnet", 3, 32, weights=weights).eval()
    grey_encoder = build_encoder("test_resnet", 1, 32, weights=weights).eval()
    torch.testing.assert_close(grey_encoder(grey), colour(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "darknet_tiny"])
def test_weights_of_another_architecture_are_refused(weights, name):
    with pytest.raises(UserError, match=rf"--encoder.weights .*weights.safetensors does not fit --encoder.name {name}"):
        check_encoder(name, pretrained=False, image_size=32, weights=weights)


def test_weights_that_cannot_be_read_are_named(weights):
    with pytest.raises(UserError, match=r"--encoder.weights none cannot be read: No such file"):
        check_encoder("test_resnet", pretrained=False, image_size=32, weights=Path("none"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"weights.safetensors cannot be read"):
        check_encoder("test_resnet", pretrained=False, image_size=32, weights=weights)

import pytest
import torch

from mmcuda.data import Augment
from mmcuda.errors import UserError

STILL = Augment(rotation=0, flip=0, zoom=0, shift=0, gain=0, bias=0, noise=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images(lidc):
    return torch.from_numpy(lidc.images[:64].copy()).float() / 255


def test_shape_type_and_range(images):
    views = Augment()(images, generator())
    assert views.shape == images.shape
    assert views.dtype == images.dtype
    assert views.min() >= 0
    assert views.max() <= 1


def test_the_seed_decides(images):
    augment = Augment()
    torch.testing.assert_close(augment(images, generator(1)), augment(images, generator(1)), rtol=0, atol=0)
    assert not torch.equal(augment(images, generator(1)), augment(images, generator(2)))


def test_every_image_gets_its_own_view(images):
    same = images[:1].expand(16, -1, -1, -1)
    views = Augment(noise=0)(same, generator())
    distances = torch.cdist(views.flatten(1), views.flatten(1)) + torch.eye(16) * 100
    assert distances.min() > 0.5


def test_nothing_to_change_returns_the_images(images):
    torch.testing.assert_close(STILL(images, generator()), images, rtol=0, atol=1e-5)


def test_a_flip_is_a_mirror_image(images):
    views = Augment(rotation=0, flip=1, zoom=0, shift=0, gain=0, bias=0, noise=0)(images, generator())
    torch.testing.assert_close(views, images.flip(-1), rtol=0, atol=1e-5)


def test_zoom_changes_the_area_and_rotation_does_not(images):
    disc = (torch.linspace(-1, 1, 33)[:, None] ** 2 + torch.linspace(-1, 1, 33) ** 2 < 0.4).float()
    batch = disc.expand(200, 1, -1, -1)
    turned = Augment(zoom=0, shift=0, gain=0, bias=0, noise=0)(batch, generator()).mean(dim=(1, 2, 3))
    torch.testing.assert_close(turned, disc.mean().expand(200), rtol=0.03, atol=0)
    area = Augment(shift=0, gain=0, bias=0, noise=0)(batch, generator()).mean(dim=(1, 2, 3)) / disc.mean()
    assert 0.6 < area.min() < 0.7
    assert 1.38 < area.max() < 1.48


def test_gain_differs_between_channels(images):
    grey = torch.full((50, 3, 16, 16), 0.5)
    views = Augment(rotation=0, zoom=0, shift=0, bias=0, noise=0)(grey, generator())[:, :, 8, 8]
    assert 0.4 <= views.min() < 0.42
    assert 0.58 < views.max() <= 0.6
    assert (views[:, 0] != views[:, 1]).all()


def test_half_precision_stays(images):
    assert Augment()(images.bfloat16(), generator()).dtype == torch.bfloat16


@pytest.mark.parametrize("batch", [torch.zeros(3, 32, 32), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)])
def test_wrong_images_are_refused(batch):
    with pytest.raises(ValueError, match=r"images must be floating \[B, C, H, W\], got"):
        Augment()(batch, generator())


@pytest.mark.parametrize("field", ["rotation", "flip", "zoom", "shift", "gain", "bias", "noise"])
def test_a_setting_out_of_range_is_named(field):
    with pytest.raises(UserError, match=rf"augment\.{field} must be in 0\.\..*, got -1"):
        Augment(**{field: -1.0})

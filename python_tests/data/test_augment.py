import pytest
import torch
import torch.nn.functional as F

from mmcuda.data import Augment
from mmcuda.errors import UserError

STILL = Augment(rotation=0, flip=0, zoom=0, shift=0, gain=0, bias=0, noise=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images(lidc):
    return torch.from_numpy(lidc.images[:64].copy())


def one_view(augment, images, seed=0):
    return augment(images, 1, generator(seed))[:, 0]


def test_shape_type_and_range(images):
    views = Augment()(images, 2, generator())
    assert views.shape == (64, 2, 3, 32, 32)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


def test_the_seed_decides(images):
    augment = Augment()
    assert torch.equal(one_view(augment, images, 1), one_view(augment, images, 1))
    assert not torch.equal(one_view(augment, images, 1), one_view(augment, images, 2))


def test_every_image_gets_its_own_views(images):
    same = images[:1].expand(16, -1, -1, -1)
    views = Augment(noise=0)(same, 2, generator()).flatten(0, 1).flatten(1)
    assert (torch.cdist(views, views) + torch.eye(32) * 100).min() > 0.3


def test_nothing_to_change_returns_the_images(images):
    torch.testing.assert_close(one_view(STILL, images), images / 255, rtol=0, atol=1e-5)


def test_a_flip_is_a_mirror_image(images):
    views = one_view(Augment(rotation=0, flip=1, zoom=0, shift=0, gain=0, bias=0, noise=0), images)
    torch.testing.assert_close(views, images.flip(-1) / 255, rtol=0, atol=1e-5)


def test_the_view_is_what_the_map_says(images):
    """Against PyTorch's own grid, which is slower."""
    augment = Augment(gain=0, bias=0)
    maps = augment._transforms(64, generator())
    grid = F.affine_grid(maps, [64, 3, 32, 32], align_corners=False)
    expected = F.grid_sample(images / 255, grid, align_corners=False)
    torch.testing.assert_close(one_view(augment, images), expected, rtol=0, atol=1e-4)


def test_zoom_changes_the_area_and_rotation_does_not():
    disc = (torch.linspace(-1, 1, 33)[:, None] ** 2 + torch.linspace(-1, 1, 33) ** 2 < 0.4).float()
    batch = (255 * disc).to(torch.uint8).expand(200, 1, -1, -1)
    turned = one_view(Augment(zoom=0, shift=0, gain=0, bias=0, noise=0), batch).mean(dim=(1, 2, 3))
    torch.testing.assert_close(turned, disc.mean().expand(200), rtol=0.03, atol=0)
    area = one_view(Augment(shift=0, gain=0, bias=0, noise=0), batch).mean(dim=(1, 2, 3)) / disc.mean()
    assert 0.6 < area.min() < 0.7
    assert 1.38 < area.max() < 1.48


def test_gain_differs_between_channels():
    grey = torch.full((50, 3, 16, 16), 102, dtype=torch.uint8)  # 0.4
    views = one_view(Augment(rotation=0, zoom=0, shift=0, bias=0, noise=0), grey)[:, :, 8, 8]
    assert 0.32 <= views.min() < 0.336
    assert 0.464 < views.max() <= 0.48
    assert (views[:, 0] != views[:, 1]).all()


def test_noise_is_added_to_every_pixel():
    grey = torch.full((20, 1, 16, 16), 102, dtype=torch.uint8)
    views = one_view(Augment(rotation=0, zoom=0, shift=0, gain=0, bias=0, noise=0.1), grey)
    assert views.std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("batch", [torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(2, 3, 32, 32)])
def test_wrong_images_are_refused(batch):
    with pytest.raises(ValueError, match=r"images must be uint8 \[B, C, H, W\], got"):
        Augment()(batch, 1, generator())


@pytest.mark.parametrize("field", ["rotation", "flip", "zoom", "shift", "gain", "bias", "noise"])
def test_a_setting_out_of_range_is_named(field):
    with pytest.raises(UserError, match=rf"augment\.{field} must be in 0\.\..*, got -1"):
        Augment(**{field: -1.0})

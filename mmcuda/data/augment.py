"""Random views of a batch of images, drawn per image and applied to the whole batch at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcuda.errors import UserError


@dataclass(frozen=True)
class Augment:
    """A random rotation, flip, zoom and shift, then a change of brightness, for every image on its own.

    All random numbers come from the generator given, on the CPU: one seed gives the same views on every device.

    Raises:
        UserError: if a setting is out of range.

    Example:
        >>> views = Augment()(torch.rand(8, 3, 32, 32), torch.Generator().manual_seed(0))
        >>> views.shape
        torch.Size([8, 3, 32, 32])
    """

    rotation: float = 180.0
    """Largest rotation in degrees, to either side."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    zoom: float = 0.2
    """Largest relative change of size; 0.2 is 0.8 to 1.2."""
    shift: float = 0.08
    """Largest shift in each direction, as a share of the image's side."""
    gain: float = 0.2
    """Largest relative change of each channel's contrast; 0.2 is 0.8 to 1.2."""
    bias: float = 0.05
    """Largest change of each channel's brightness, where 1 is white."""
    noise: float = 0.0
    """Standard deviation of the noise added to every pixel, where 1 is white; 0 is none."""

    def __post_init__(self) -> None:
        ranges = {"rotation": 180.0, "flip": 1.0, "zoom": 0.9, "shift": 1.0, "gain": 1.0, "bias": 1.0, "noise": 1.0}
        for name, largest in ranges.items():
            value = getattr(self, name)
            if not 0 <= value <= largest:
                raise UserError(f"augment.{name} must be in 0..{largest:g}, got {value}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return one random view of every image.

        Args:
            images: [B, C, H, W] floating, in 0..1, on any device.
            generator: a CPU generator; the views depend on it alone.

        Returns:
            [B, C, H, W] in 0..1, in the images' type and on their device.

        Raises:
            ValueError: if ``images`` is not floating [B, C, H, W].
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(f"images must be floating [B, C, H, W], got {images.dtype} {list(images.shape)}")
        batch, channels, height, width = images.shape
        transforms = self._transforms(batch, generator).to(images)
        gain = (1 + self.gain * _uniform((batch, channels, 1, 1), generator)).to(images)
        bias = (self.bias * _uniform((batch, channels, 1, 1), generator)).to(images)

        views = F.grid_sample(images, _grid(transforms, height, width), padding_mode="zeros", align_corners=False)
        views.mul_(gain).add_(bias)  # in place: fresh memory for each step would cost more than the arithmetic
        if self.noise > 0:
            views += (self.noise * torch.randn(images.shape, generator=generator)).to(images)
        return views.clamp_(0, 1)

    def views(self, images: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` random views of every image.

        Args:
            images: [B, C, H, W] uint8, on any device.
            count: V, at least 1.
            generator: as for one view.

        Returns:
            [B, V, C, H, W] float32 in 0..1, on the images' device.
        """
        scaled = images.float().div_(255)
        return torch.stack([self(scaled, generator) for _ in range(count)], dim=1)

    def _transforms(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw [B, 2, 3] maps from a view's coordinates (-1..1) to the image's, in which grid_sample looks up."""
        angle = math.radians(self.rotation) * _uniform((batch,), generator)
        size = 1 + self.zoom * _uniform((batch,), generator)  # above 1: the view shows the image larger
        mirror = 1 - 2 * (torch.rand(batch, generator=generator) < self.flip).float()
        offset = 2 * self.shift * _uniform((batch, 2), generator)  # the image's side is 2 long
        cosine, sine = angle.cos() / size, angle.sin() / size
        rows = [mirror * cosine, -sine, offset[:, 0], mirror * sine, cosine, offset[:, 1]]
        return torch.stack(rows, dim=1).view(batch, 2, 3)


def _grid(transforms: Tensor, height: int, width: int) -> Tensor:
    """Return where each pixel of the views looks up, [B, H, W, 2] of x and y in -1..1.

    As F.affine_grid with align_corners=False, in a tenth of its time: a plane of x and one of y, each the sum of what
    a column and what a row contributes.
    """
    x, y = (((2 * torch.arange(side) + 1) / side - 1).to(transforms) for side in (width, height))
    along = transforms[..., 0, None] * x  # [B, 2, W]
    down = transforms[..., 1, None] * y + transforms[..., 2, None]  # [B, 2, H]
    return (along[:, :, None] + down[..., None]).permute(0, 2, 3, 1)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from -1..1."""
    return 2 * torch.rand(shape, generator=generator) - 1

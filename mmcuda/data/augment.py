"""Random views of a batch of images, drawn per image and applied to the whole batch at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcuda.errors import UserError


class Draws(NamedTuple):
    """What makes V views of each of B images of C channels: all that is random about them."""

    maps: Tensor  # [B, V, 2, 3] from a view's coordinates x, y (-1..1) to the image's
    gain: Tensor  # [B, V, C]
    bias: Tensor  # [B, V, C], where 1 is white
    noise: Tensor | None  # [B, V, C, H, W], where 1 is white

    def to(self, device: torch.device) -> Draws:
        """Return the same on ``device``."""
        maps, gain, bias = (part.to(device, non_blocking=True) for part in (self.maps, self.gain, self.bias))
        return Draws(maps, gain, bias, None if self.noise is None else self.noise.to(device, non_blocking=True))

    def views(self, images: Tensor) -> Tensor:
        """Return the views [B, V, C, H, W], float32 in 0..1, of ``images`` uint8: [B, V, C, H, W], or [B, 1, C, H, W].

        Every step is one operation for all views, and works in place: fresh memory would cost more than the sums.
        """
        (batch, sources, channels, height, width), count = images.shape, self.maps.shape[1]
        # The views of an image are sampled as one tall one.
        grid = self._grid(height, width, sources)
        tall = F.grid_sample(images.flatten(0, 1).float(), grid, padding_mode="zeros", align_corners=False)
        views = tall.view(batch, sources, channels, count // sources, height, width).transpose(2, 3).flatten(1, 2)
        views.mul_(self.gain[..., None, None] / 255).add_(self.bias[..., None, None])
        if self.noise is not None:
            views += self.noise
        return torch.clamp(views, 0, 1, out=tall.new_empty(views.shape))

    def _grid(self, height: int, width: int, sources: int) -> Tensor:
        """Return where each pixel of the views looks up, [B * sources, V / sources * H, W, 2] of x and y in -1..1.

        As F.affine_grid with align_corners=False, in a tenth of its time: planes of x and of y, each the sum of what a
        column and what a row contributes.
        """
        x, y = (((2 * torch.arange(side) + 1) / side - 1).to(self.maps) for side in (width, height))
        maps = self.maps.view(-1, self.maps.shape[1] // sources, 2, 3)
        along = (maps[..., 0, None] * x).transpose(1, 2).contiguous()  # [B, 2, V, W]
        down = (maps[..., 1, None] * y + maps[..., 2, None]).transpose(1, 2).contiguous()  # [B, 2, V, H]
        planes = along[:, :, :, None] + down[..., None]  # [B, 2, V, H, W]
        return planes.flatten(2, 3).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Augment:
    """A random rotation, flip, zoom and shift, then a change of brightness, for every image on its own.

    All random numbers come from the generator given, on the CPU: one seed gives the same views on every device.

    Raises:
        UserError: if a setting is out of range.

    Example:
        >>> images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> Augment()(images, 2, torch.Generator().manual_seed(0)).shape
        torch.Size([8, 2, 3, 32, 32])
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

    def __call__(self, images: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` random views of every image.

        Args:
            images: [B, C, H, W] uint8, on any device.
            count: V, at least 1.
            generator: a CPU generator; the views depend on it alone.

        Returns:
            [B, V, C, H, W] float32 in 0..1, on the images' device.

        Raises:
            ValueError: if ``images`` is not uint8 [B, C, H, W].
        """
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8 [B, C, H, W], got {images.dtype} {list(images.shape)}")
        return self.draw(images.shape, count, generator).to(images.device).views(images[:, None])

    def draw(self, shape: torch.Size, count: int, generator: torch.Generator) -> Draws:
        """Draw what makes ``count`` views of images of ``shape`` [B, C, H, W]."""
        batch, channels, height, width = shape
        maps, gain, bias = [], [], []
        for _ in range(count):
            maps.append(self._transforms(batch, generator))
            gain.append(1 + self.gain * _uniform((batch, channels), generator))
            bias.append(self.bias * _uniform((batch, channels), generator))
        noise = None
        if self.noise > 0:
            noise = self.noise * torch.randn((batch, count, channels, height, width), generator=generator)
        return Draws(torch.stack(maps, dim=1), torch.stack(gain, dim=1), torch.stack(bias, dim=1), noise)

    def _transforms(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw [B, 2, 3] maps from a view's coordinates (-1..1) to the image's, in which grid_sample looks up."""
        angle = math.radians(self.rotation) * _uniform((batch,), generator)
        size = 1 + self.zoom * _uniform((batch,), generator)  # above 1: the view shows the image larger
        mirror = 1 - 2 * (torch.rand(batch, generator=generator) < self.flip).float()
        offset = 2 * self.shift * _uniform((batch, 2), generator)  # the image's side is 2 long
        cosine, sine = angle.cos() / size, angle.sin() / size
        rows = [mirror * cosine, -sine, offset[:, 0], mirror * sine, cosine, offset[:, 1]]
        return torch.stack(rows, dim=1).view(batch, 2, 3)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from -1..1."""
    return 2 * torch.rand(shape, generator=generator) - 1

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
        pixels = images.float()
        views = pixels.new_empty(len(pixels), count, *pixels.shape[1:])
        for index in range(count):
            self._draw(pixels, generator, out=views[:, index])
        return views

    def _draw(self, pixels: Tensor, generator: torch.Generator, out: Tensor) -> None:
        """Draw one view of every image into ``out``. Every step works in place: fresh memory costs more than sums."""
        batch, channels, height, width = pixels.shape
        transforms = self._transforms(batch, generator).to(pixels)
        gain = (1 + self.gain * _uniform((batch, channels, 1, 1), generator)).to(pixels)
        bias = (self.bias * _uniform((batch, channels, 1, 1), generator)).to(pixels)
        view = F.grid_sample(pixels, _grid(transforms, height, width), padding_mode="zeros", align_corners=False)
        view.mul_(gain / 255).add_(bias)
        if self.noise > 0:
            view += (self.noise * torch.randn(pixels.shape, generator=generator)).to(pixels)
        torch.clamp(view, 0, 1, out=out)

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

"""Render one reading of a nodule, a stack of contours, as a small image from which the nodule's size is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

CHANNEL_NAMES = ("largest slice", "thickness", "coronal projection")
FILL = 0.85  # share of the image's side that the nodule's longer extent takes
SUPERSAMPLING = 4  # contours are drawn this much larger, then averaged to soft edges


@dataclass(frozen=True)
class Contour:
    """One closed contour on one axial slice."""

    z: float  # mm, position of the slice
    points: npt.NDArray[np.float64]  # [P, 2] x and y in mm
    is_hole: bool

    @property
    def area(self) -> float:
        """Area inside the contour, mm2 (shoelace formula)."""
        x, y = self.points.T
        return 0.5 * abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0]))


def group_slices(contours: Sequence[Contour]) -> dict[float, list[Contour]]:
    """Return the contours of each slice, lowest slice first, leaving out slices with holes only."""
    slices: dict[float, list[Contour]] = {}
    for contour in sorted(contours, key=lambda contour: (contour.z, contour.is_hole)):
        if contour.z in slices or not contour.is_hole:
            slices.setdefault(contour.z, []).append(contour)
    return slices


def render_reading(contours: Sequence[Contour], slice_spacing: float, image_size: int) -> npt.NDArray[np.uint8]:
    """Draw a reading at a normalised scale: the nodule fills the field, whatever its size in mm.

    Channel 0 is the filled slice of largest area, channel 1 the thickness along z divided by its maximum, channel 2
    the thickness along y (coronal projection, head up) divided by its maximum. Proportions are true in each channel.

    Args:
        contours: all contours of the reading, at least one that is not a hole.
        slice_spacing: distance of the scan's slices in mm.
        image_size: side of the image in pixels.

    Returns:
        [3, image_size, image_size] image.
    """
    side = SUPERSAMPLING * image_size
    slices = group_slices(contours)
    heights = np.array(list(slices))
    outline = np.concatenate([contour.points for contour in contours if not contour.is_hole])
    low, high = outline.min(axis=0), outline.max(axis=0)
    field = float((high - low).max()) / FILL  # mm along the side of the axial channels
    corner = (low + high - field) / 2
    masks = np.stack([_fill(stack, corner, side / field, side) for stack in slices.values()])  # [slices, side, side]

    profiles = masks.sum(axis=1, dtype=np.uint16)  # [slices, side] thickness along y
    largest = profiles.sum(axis=1).argmax()
    tall = heights[-1] - heights[0] + slice_spacing
    coronal_field = max(float(high[0] - low[0]), tall) / FILL
    channels = [
        masks[largest],
        masks.sum(axis=0, dtype=np.uint16),
        _coronal(profiles, heights, slice_spacing, coronal_field / field, coronal_field),
    ]
    soft = np.stack(channels).reshape(3, image_size, SUPERSAMPLING, image_size, SUPERSAMPLING).mean(axis=(2, 4))
    soft[1:] /= soft[1:].max(axis=(1, 2), keepdims=True)
    image: npt.NDArray[np.uint8] = np.rint(255 * soft).astype(np.uint8)
    return image


def _fill(stack: Sequence[Contour], corner: npt.NDArray[np.float64], pixels_per_mm: float, side: int) -> np.ndarray:
    """Fill the contours of one slice, holes last, into a [side, side] mask of 0 and 1."""
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for contour in stack:
        points = (contour.points - corner) * pixels_per_mm
        draw.polygon(points.ravel().tolist(), fill=0 if contour.is_hole else 1)
    return np.asarray(canvas)


def _coronal(
    profiles: npt.NDArray[np.uint16],  # [slices, side]
    heights: npt.NDArray[np.float64],  # [slices] mm
    slice_spacing: float,
    zoom: float,  # the coronal field over the axial field
    field: float,  # mm along the side of the coronal channel
) -> npt.NDArray[np.float64]:
    """Interpolate the slices' profiles along z, ending half a slice beyond the first and last, to [side, side]."""
    side = profiles.shape[1]
    centres = (np.arange(side) + 0.5) / side - 0.5
    columns = np.clip((centres * zoom + 0.5) * side - 0.5, 0, side - 1)
    known = np.arange(side)
    stretched = np.stack([np.interp(columns, known, profile) for profile in profiles])
    # A profile fades to nothing at the next slice outside: its half value lies half a slice out.
    positions = np.concatenate([[heights[0] - slice_spacing], heights, [heights[-1] + slice_spacing]])
    padded = np.pad(stretched, ((1, 1), (0, 0)))
    rows = (heights[0] + heights[-1]) / 2 - centres * field
    above = np.clip(np.searchsorted(positions, rows), 1, len(positions) - 1)
    weight = np.clip((rows - positions[above - 1]) / (positions[above] - positions[above - 1]), 0, 1)[:, None]
    coronal: npt.NDArray[np.float64] = (1 - weight) * padded[above - 1] + weight * padded[above]
    return coronal

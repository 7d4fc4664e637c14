from dataclasses import replace

import numpy as np
import pytest

from mmcuda.data.sources.lidc_rendering import FILL, Contour, render_reading


def box(z, wide, tall, is_hole=False):
    """Return a rectangle around the origin."""
    corners = np.array([[-wide, -tall], [wide, -tall], [wide, tall], [-wide, tall]], dtype=float) / 2
    return Contour(z, corners, is_hole)


def disc(z, radius, is_hole=False):
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return Contour(z, radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), is_hole)


def extent(channel):
    """Return the height and width in pixels of what is brighter than half."""
    inside = channel > 127
    return inside.any(axis=1).sum(), inside.any(axis=0).sum()


@pytest.mark.parametrize("factor", [0.25, 3.7])
def test_the_same_shape_at_another_size_gives_the_same_image(reading, factor):
    scaled = [
        replace(contour, z=factor * contour.z, points=factor * contour.points + 100) for contour in reading.contours
    ]
    image = render_reading(reading.contours, reading.slice_spacing, 32)
    other = render_reading(scaled, factor * reading.slice_spacing, 32)
    difference = np.abs(image.astype(int) - other)
    assert difference.mean() < 0.5
    assert (difference > 64).sum() == 0


@pytest.mark.parametrize("size", [8, 31, 32, 64])
def test_a_box_keeps_its_proportions_and_fills_the_field(size):
    image = render_reading([box(z, wide=20, tall=10) for z in (0, 2, 4)], slice_spacing=2, image_size=size)
    assert image.shape == (3, size, size)
    assert image.dtype == np.uint8
    assert image[1:].max(axis=(1, 2)).tolist() == [255, 255]
    wide, half, third = FILL * size, FILL * size / 2, FILL * size * 6 / 20
    np.testing.assert_allclose(extent(image[0]), (half, wide), atol=1.5)
    np.testing.assert_allclose(extent(image[1]), (half, wide), atol=1.5)
    np.testing.assert_allclose(extent(image[2]), (third, wide), atol=1.5)


def test_a_tall_nodule_fits_the_coronal_channel():
    image = render_reading([box(z, wide=5, tall=5) for z in range(20)], slice_spacing=1, image_size=32)
    np.testing.assert_allclose(extent(image[2]), (FILL * 32, FILL * 32 / 4), atol=1.5)


def test_the_area_of_a_disc_is_true():
    image = render_reading([disc(0, 4)], slice_spacing=1, image_size=48)
    np.testing.assert_allclose((image[0] / 255).mean(), np.pi / 4 * FILL**2, rtol=0.02)


def test_a_symmetric_nodule_is_centred():
    image = render_reading([disc(0, 4), disc(1, 2)], slice_spacing=1, image_size=32)
    np.testing.assert_array_equal(image[:2], image[:2, ::-1])
    np.testing.assert_array_equal(image, image[:, :, ::-1])


def test_edges_are_soft():
    image = render_reading([disc(0, 4)], slice_spacing=1, image_size=32)
    assert ((image[0] > 10) & (image[0] < 245)).sum() > 20


def test_holes_are_empty():
    rings = [part for z in (0, 1, 2) for part in (disc(z, 3, is_hole=True), disc(z, 6))]
    image = render_reading(rings, slice_spacing=1, image_size=32)
    assert image[:2, 14:18, 14:18].max() == 0
    assert image[0, 16, 16 + 10] == 255
    centre, rim = image[2, 16, 16], image[2, 16, 16 + 10]
    assert 0 < centre < rim, "the coronal ray through the hole crosses less of the nodule"


def test_two_contours_on_one_slice_are_one_mask():
    left, right = (replace(disc(0, 2), points=disc(0, 2).points + np.array([x, 0])) for x in (-5, 5))
    image = render_reading([left, right], slice_spacing=1, image_size=32)
    assert image[0, 16, [6, 26]].tolist() == [255, 255]
    assert image[0, 16, 16] == 0


def test_largest_slice_and_thickness_differ():
    image = render_reading([disc(0, 2), disc(1, 6), disc(2, 2)], slice_spacing=1, image_size=32)
    assert image[0, 16, [16, 25]].tolist() == [255, 255]
    assert image[1, 16, 16] == 255
    np.testing.assert_allclose(image[1, 16, 25], 255 / 3, atol=2)


def test_the_head_is_up_in_the_coronal_channel():
    image = render_reading([disc(0, 6), disc(1, 6), disc(2, 2), disc(3, 2)], slice_spacing=2, image_size=32)
    narrow, broad = (image[2, row] > 60 for row in (10, 22))
    assert narrow.sum() < broad.sum()


@pytest.mark.parametrize("points", [[[1, 1], [2, 1]], [[5, 5], [5, 5], [5, 6]]])
def test_a_contour_without_area_still_shows(points):
    image = render_reading([Contour(0.0, np.array(points, dtype=float), False)], slice_spacing=1, image_size=16)
    assert (image.max(axis=(1, 2)) > 50).all()

"""The content of one image file, 8 bit, grey or colour: tif, png, jpg and what else Pillow reads, DICOM, NIfTI, npy."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
SUFFIXES = (*PICTURES, ".npy", ".nii", ".nii.gz", ".dcm")  # of image files; DICOM is known by its content, too
PERCENTILES = (0.5, 99.5)  # of the values that become 0 and 255
SAMPLED = 512  # rows and columns, at most, that the percentiles are taken of
LYING = 5  # orientations from this number on exchange width and height
HEADER = Lock()  # NumPy parses the header as Python, which in CPython 3.11 now and then fails in two threads at once
BEYOND = 100.0  # window widths from its centre: surely outside


class Decoded(NamedTuple):
    """An image, 8 bit, in mode L or RGB."""

    image: Image.Image  # of a JPEG perhaps smaller than in the file
    width: int  # in the file, in pixels
    height: int


class FormatError(ValueError):
    """A file is well but holds no image that can be used; the message says why, in words for the user."""


def decode(path: Path, number: int | None, size: int) -> Decoded:
    """Return the image in a file.

    Args:
        path: the file.
        number: which of its images, from 0; None is the first page of a tif and the middle image of everything else.
        size: side that will be needed: a JPEG may be decoded at a lower resolution, not below twice that.

    Raises:
        FormatError: if the file holds no such image.
        Exception: whatever the format's library raises on a damaged file.
    """
    name = path.name.lower()
    if name.endswith(PICTURES):
        return _decode_picture(path, number, size)
    if name.endswith(".npy"):
        return _whole(_as_image(_read_npy(path, number)))
    if name.endswith((".nii", ".nii.gz")):
        return _whole(_as_image(_read_nifti(path, number)))
    if name.endswith(".dcm") or _is_dicom(path):
        return _whole(_decode_dicom(path, number))
    return _decode_picture(path, number, size)


def _whole(image: Image.Image) -> Decoded:
    return Decoded(image, image.width, image.height)


def _decode_picture(path: Path, number: int | None, size: int) -> Decoded:
    with Image.open(path) as image:
        width, height = image.size
        image.draft(None, (2 * size, 2 * size))  # JPEG: a smaller cosine transform, several times faster
        if number is not None:
            image.seek(_pick(number, getattr(image, "n_frames", 1), "page", default=0))
            width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= LYING:
            width, height = height, width
        return Decoded(_in_8_bit(ImageOps.exif_transpose(image)), width, height)


def _in_8_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    if image.mode.startswith(("I", "F")):
        return _as_image(np.asarray(image))
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def _as_image(values: npt.NDArray[Any], ends: tuple[float, float] | None = None) -> Image.Image:
    """Return an image of [H, W] or [H, W, C]; ``ends`` are the values that become 0 and 255, by default PERCENTILES."""
    if values.ndim == 3 and values.shape[2] in (1, 3, 4):
        values = values[..., 0] if values.shape[2] == 1 else values[..., :3]
    elif values.ndim != 2:
        raise FormatError(f"expected an image [H, W] or [H, W, C], got {list(values.shape)}")
    if values.dtype == bool:
        values = values * np.uint8(255)
    if values.dtype != np.uint8 or ends is not None:
        low, high = ends or _usual_range(values)
        scaled = (values.astype(np.float32) - low) * (255 / (high - low) if high > low else 0)
        values = np.rint(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(values))


def _usual_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the percentiles of the finite values, or their ends where most values are equal."""
    steps = (max(1, values.shape[0] // SAMPLED), max(1, values.shape[1] // SAMPLED))
    sample = values[:: steps[0], :: steps[1]].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if len(finite) == 0:
        return 0.0, 0.0
    low, high = np.percentile(finite, PERCENTILES)
    return (float(low), float(high)) if high > low else (float(finite.min()), float(finite.max()))


def _pick(number: int | None, count: int, kind: str, default: int) -> int:
    if number is not None and number >= count:
        raise FormatError(f"has {count} {kind}s, numbered from 0, but number {number} is asked for")
    return default if number is None else number


def _read_npy(path: Path, number: int | None) -> npt.NDArray[Any]:
    """Return [H, W], [H, W, C], [C, H, W] with C of 1 or 3, or one image of a stack [N, H, W]."""
    with HEADER:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
        raise FormatError(f"expected numbers, got {values.dtype}")
    if values.ndim == 3 and number is None and values.shape[2] in (1, 3, 4):
        return np.asarray(values)
    if values.ndim == 3 and number is None and values.shape[0] in (1, 3):
        return np.moveaxis(values, 0, 2)
    if values.ndim == 3:
        return np.asarray(values[_pick(number, len(values), "image", default=len(values) // 2)])
    return np.asarray(values)


def _read_nifti(path: Path, number: int | None) -> npt.NDArray[Any]:
    """Return one axial slice as radiologists look at it: anterior up, the patient's right on the left."""
    import nibabel

    volume: Any = nibabel.load(path)
    shape = volume.shape[:3] if all(length == 1 for length in volume.shape[3:]) else volume.shape
    if len(shape) != 3:
        raise FormatError(f"expected a volume of 3 dimensions, got {list(volume.shape)}")
    axes, directions = nibabel.orientations.io_orientation(volume.affine).T  # of each voxel axis
    if set(axes) != {0, 1, 2}:
        raise FormatError("the orientation in its header is not valid")
    across = int(np.flatnonzero(axes == 2)[0])
    index: list[Any] = [slice(None)] * 3
    index[across] = _pick(number, shape[across], "slice", default=shape[across] // 2)
    plane = np.asarray(volume.dataobj[(*index, *[0] * (len(volume.shape) - 3))])
    first = 0 if across != 0 else 1  # the voxel axis that is the plane's first
    plane = plane if axes[first] == 0 else plane.T
    if directions[axes == 0] > 0:
        plane = plane[::-1]
    if directions[axes == 1] > 0:
        plane = plane[:, ::-1]
    return plane.T


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _decode_dicom(path: Path, number: int | None) -> Image.Image:
    """Return one frame with its rescaling, its window (the first of several) and MONOCHROME1 turned over."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing, pixel_array

    try:
        dataset = pydicom.dcmread(path)
    except InvalidDicomError:
        raise FormatError("not a DICOM file") from None
    if "PixelData" not in dataset:
        raise FormatError("a DICOM file that holds no image")
    frames = int(dataset.get("NumberOfFrames") or 1)
    pixels = pixel_array(dataset, index=_pick(number, frames, "frame", default=frames // 2))
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(pixels, dataset)
        return _as_image(colours, (0, np.iinfo(colours.dtype).max))
    if not kind.startswith("MONOCHROME"):
        return _as_image(pixels, (0, 2**dataset.BitsStored - 1))
    values = apply_modality_lut(pixels, dataset)
    ends = (0.0, 2.0**dataset.BitsStored - 1) if values.dtype == np.uint8 else None
    if dataset.get("VOILUTSequence"):
        values = apply_voi(values.astype(np.int64), dataset)
        ends = (0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1)
    elif dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        centre, width = (np.atleast_1d(dataset[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
        values = apply_windowing(values, dataset)
        dark, bright = apply_windowing(np.array([centre - BEYOND * width, centre + BEYOND * width]), dataset)
        ends = (float(dark), float(bright))
    image = _as_image(values, ends)
    return ImageOps.invert(image) if kind == "MONOCHROME1" else image

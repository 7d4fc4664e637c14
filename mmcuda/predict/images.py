"""Images as a model takes them, from arrays, tensors or files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mmcuda.data.decode import image_problem, read_pictures
from mmcuda.data.image_files import DECODING_VERSION, FileImages, fit_square
from mmcuda.data.problems import ImageError, Problem, raise_errors
from mmcuda.data.table import ImageSource
from mmcuda.errors import UserError
from mmcuda.models.description import ModelDescription

File = str | Path
Images = npt.NDArray[Any] | Tensor | File | Sequence[npt.NDArray[Any] | Tensor] | Sequence[File]


def image_batches(images: Images, description: ModelDescription, batch_size: int) -> Iterator[Tensor]:
    """Yield the images as a model takes them, float32 [b, C, S, S] in 0..1, ``batch_size`` at a time.

    Args:
        images: a file or a sequence of them, read as the model's training images were; or [N, C, H, W], an array, a
            tensor or a sequence of [C, H, W]: uint8 of any size, fitted to a square as files are, or floating in 0..1
            and of the model's size.
        description: of the model: channels C, size S.
        batch_size: b, but for the last batch.

    Raises:
        TypeError, ValueError: if they are of another type, shape or range.
        UserError: if a file cannot be read.
    """
    starts = range(0, 1 if isinstance(images, File) else len(images), batch_size)
    if isinstance(images, np.ndarray | Tensor):
        for start in starts:
            yield as_input(images[start : start + batch_size], description)
        return
    items: list[Any] = [images] if isinstance(images, File) else list(images)
    if all(isinstance(item, File) for item in items):
        source = file_source(Path(), np.array([str(path) for path in items], dtype=str), description)
        for pixels in read_batches(source, description.image_size, batch_size):
            yield torch.from_numpy(pixels).float() / 255
    elif all(isinstance(item, np.ndarray | Tensor) for item in items):
        for start in starts:
            yield torch.cat([as_input(image[None], description) for image in items[start : start + batch_size]])
    else:
        kinds = ", ".join(sorted({type(item).__name__ for item in items}))
        raise TypeError(f"images must be files, arrays or tensors, got a {type(images).__name__} of {kinds}")


def file_source(root: Path, names: npt.NDArray[np.str_], description: ModelDescription) -> FileImages:
    """Return the image files ``names`` [N] under ``root``, read as the model wants them.

    Raises:
        UserError: if the model's images do not come from files.
    """
    version = f"files-v{DECODING_VERSION}-{len(description.channels)}"
    check_reader(version, description)
    return FileImages(root, names, len(description.channels))


def check_reader(version: str, description: ModelDescription) -> None:
    """Raise a UserError if the reader ``version`` is of another kind than the model's; warn if its version differs."""
    if version.split("-")[0] != description.reader.split("-")[0]:
        raise UserError(
            f"the model is of images by the reader {description.reader}, these come from {version}: give it arrays, "
            "with mmcuda.load(...).predict"
        )
    if version != description.reader:
        warnings.warn(f"the model is of images by {description.reader}, these are read by {version}", stacklevel=2)


def read_batches(
    source: ImageSource, size: int, batch_size: int, row_numbers: npt.NDArray[np.int64] | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the images of ``source`` in order, [b, C, size, size], ``batch_size`` at a time or fewer.

    Args:
        source: N images.
        size: side to fit them to, in pixels.
        batch_size: the highest b.
        row_numbers: [N] in the user's table, for messages.

    Raises:
        UserError: after the last image, naming the first of those that cannot be read.
    """
    problems: list[Problem] = []
    for block in read_pictures(source, list(np.arange(len(source))[:, None]), size, "predicting"):
        pixels = []
        for rows, picture in block:
            if not isinstance(picture, ImageError):
                pixels.append(picture.pixels)
            elif row_numbers is None:
                problems.append(Problem("error", picture.where, picture.message))
            else:
                problems.append(image_problem(picture, row_numbers[rows]))
        for start in range(0, len(pixels), batch_size):
            yield np.stack(pixels[start : start + batch_size])
    raise_errors(problems)


def as_input(images: npt.NDArray[Any] | Tensor, description: ModelDescription) -> Tensor:
    """Return images [b, C, H, W], uint8 or floating in 0..1, as float32 [b, C, S, S] in 0..1.

    Raises:
        TypeError, ValueError: naming what was expected and what came.
    """
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.require(images, requirements="W"))  # a copy of those that are mapped read-only
    channels, size = len(description.channels), description.image_size
    shape = list(images.shape)
    if images.ndim != 4 or shape[1] != channels:
        raise ValueError(f"images must be [N, {channels}, H, W], got {shape}")
    if images.dtype == torch.uint8:
        if shape[2:] != [size, size]:
            images = torch.from_numpy(np.stack([_fitted(image, size) for image in images.cpu().numpy()]))
        return images.float() / 255
    if not images.is_floating_point():
        raise TypeError(f"images must be uint8 in 0..255 or floating in 0..1, got {images.dtype}")
    if shape[2:] != [size, size]:
        raise ValueError(
            f"floating images must be [N, {channels}, {size}, {size}], got {shape}; uint8 may have any size"
        )
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # nor if one is NaN
        raise ValueError(f"floating images must be in 0..1, got values in {low:g}..{high:g}")
    return images.float()


def _fitted(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Fit [C, H, W] to [C, size, size] as an image in a file."""
    return np.stack([np.asarray(fit_square(Image.fromarray(channel), size)) for channel in image])

"""Images in files: found, decoded, scaled to 8 bit and fitted to a square.

8-bit images stay as they are. Of anything wider (16-bit, float, DICOM without a window, NIfTI, npy) the 0.5th
percentile of the image becomes 0 and the 99.5th becomes 255, alike in every file format; a DICOM window takes their
place. An image that is not square is scaled by its longer side, antialiased, and padded with black: anatomy is neither
squashed nor cut.

One image of a file that holds several is named by a number from 0 behind its path: ``scan.tif#3``,
``volume.nii.gz#12``. Without it the first page of a tif is read, and the middle frame of a DICOM file, slice of a NIfTI
file or image of a stack in an npy file.
"""

from __future__ import annotations

import errno
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from mmcuda.data.columns import Words
from mmcuda.data.image_formats import Decoded, FormatError, decode
from mmcuda.data.problems import ImageError
from mmcuda.data.table import Picture

DECODING_VERSION = 1  # raise it when the same file would give other pixels
NUMBERED = re.compile(r"(.+\.(?:tiff?|dcm|nii|nii\.gz|npy))#(\d+)", re.IGNORECASE)
CUT_OFF = ("truncated", "greater than file size", "less than expected", "not enough data")  # how the libraries say it
FIRST_TRIED = 20  # images tried for one that tells the number of channels


@dataclass(frozen=True)
class FileImages:
    """The images of a table, each in a file or a part of one.

    Raises:
        ValueError: if ``channels`` is neither 1 nor 3.
    """

    root: Path  # folder that the names start from
    names: Words  # [N] paths as in the table; absolute ones are taken as they are
    channels: int  # 1 = grey, 3 = red, green, blue

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels."""
        return ("grey",) if self.channels == 1 else ("red", "green", "blue")

    @property
    def version(self) -> str:
        """Name of the decoder and its options."""
        return f"files-v{DECODING_VERSION}-{self.channels}"

    @cached_property
    def origins(self) -> Words:
        """The files' paths, with the number of the image in the file."""
        return np.array([str(self.root / name) for name in self.names.tolist()], dtype=str)

    def __len__(self) -> int:
        return len(self.names)

    def stamps(self) -> Words:
        """Return size and time of every file, "missing" where there is none."""

        def stamp(row: int) -> str:
            try:
                status = self.locate(row)[0].stat()
            except (OSError, ValueError):
                return "missing"
            return f"{status.st_size} {status.st_mtime_ns}"

        return np.array([stamp(row) for row in range(len(self))], dtype=str)

    def locate(self, row: int) -> tuple[Path, int | None]:
        """Return the file of one row, whether or not it exists, and the number of the image in it."""
        name = str(self.names[row])
        numbered = NUMBERED.fullmatch(name)
        name, number = (numbered[1], int(numbered[2])) if numbered else (name, None)
        path = self.root / name
        if not path.exists():  # a table and a file system may write one accent in two ways
            for form in ("NFC", "NFD"):
                other = self.root / unicodedata.normalize(form, name)
                if other.exists():
                    return other, number
        return path, number

    def decode(self, row: int, size: int) -> Decoded:
        """Return one image as it is in the file but 8 bit, in mode L or RGB; ``size`` as for :meth:`read`.

        Raises:
            ImageError: if it is missing or cannot be decoded.
        """
        path, number = self.locate(row)
        try:
            if path.stat().st_size == 0:
                raise FormatError("empty (0 bytes)")
            return decode(path, number, size)
        except Exception as error:  # the formats' libraries raise anything on a damaged file
            raise ImageError(str(self.names[row]), _reason(error)) from error

    def read(self, row: int, size: int) -> Picture:
        """Read one image; its digest is that of the decoded content, so that copies in two formats are found, too.

        Raises:
            ImageError: if it is missing or cannot be decoded.
        """
        image, width, height = self.decode(row, size)
        digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=f"{image.mode} {image.size}".encode())
        fitted = fit_square(image.convert("L" if self.channels == 1 else "RGB"), size)
        pixels = np.asarray(fitted).reshape(size, size, self.channels).transpose(2, 0, 1)
        return Picture(np.ascontiguousarray(pixels), width, height, digest.hexdigest())

    def take(self, rows: npt.NDArray[np.int64]) -> FileImages:
        """Return the images of ``rows`` alone."""
        return FileImages(self.root, self.names[rows], self.channels)


def open_images(root: Path, names: Words, channels: int | None = None) -> FileImages:
    """Return the images of a table; without ``channels``, as the first image that can be read, or else grey."""
    images = FileImages(root, names, channels or 1)
    for row in range(min(len(names), FIRST_TRIED) if channels is None else 0):
        try:
            return images if images.decode(row, 8).image.mode == "L" else FileImages(root, names, 3)
        except ImageError:
            continue
    return images


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Scale an image by its longer side, antialiased, and pad it with black to [size, size]."""
    scale = size / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3)
    if width == height:
        return scaled
    square = Image.new(image.mode, (size, size))
    square.paste(scaled, ((size - width) // 2, (size - height) // 2))
    return square


def _reason(error: Exception) -> str:
    """Return why an image cannot be read, in words for the user."""
    text = " ".join(str(error).split())
    if isinstance(error, FormatError):
        return text
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing"
    if isinstance(error, IsADirectoryError):
        return "a folder, not an image"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a loop of symbolic links"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, EOFError) or any(words in text for words in CUT_OFF):
        return "truncated"
    if "missing dependencies" in text:
        return "compressed in a way that needs one more package: pip install 'pylibjpeg[all]'"
    return f"cannot be decoded: {type(error).__name__}: {text}"

"""The images of a table, decoded once at training resolution into one file that is memory-mapped afterwards.

A cache is a folder of two arrays: images.npy holds the pixels, records.npy a record a row: the state of the input that
the pixels come from, what is known of it, and the pixels' checksum. Both are filled as *.part, a block of images at a
time, and renamed when they are complete. So an interruption costs one block, a changed input costs its own rows, and
whoever has mapped the old images keeps them.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from mmcuda.data.cache import default_cache_dir, read_array, writable_folder
from mmcuda.data.decode import ImageFacts, Rows, digest_of, group_rows, image_problem, read_pictures, reader_threads
from mmcuda.data.problems import ImageError, raise_errors
from mmcuda.data.table import CohortTable
from mmcuda.errors import UserError

RECORD = np.dtype(
    [
        ("written", np.bool_),
        ("stamp", np.uint64),  # hash of the input's state
        ("checksum", np.uint32),  # CRC-32 of the pixels
        ("width", np.int32),
        ("height", np.int32),
        ("digest", "S32"),
    ]
)
ARRAYS = ("images", "records")
Array = np.ndarray[Any, Any]
Stamps = npt.NDArray[np.uint64]


class ImageCache:
    """The cache of a table's images at one size.

    Args:
        table: whose images.
        image_size: side to fit them to, in pixels.
        cache_dir: folder of all caches; by default ``$MMCUDA_CACHE``, or ``~/.cache/mmcuda``.
    """

    def __init__(self, table: CohortTable, image_size: int, cache_dir: Path | None = None) -> None:
        self.table, self.size = table, image_size
        images = table.images
        self.shape = (len(table), len(images.channel_names), image_size, image_size)
        identity = "\n".join([images.version, str(self.shape), *images.origins.tolist()])
        name = f"{table.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}-{image_size}px"
        self.folder = (cache_dir or default_cache_dir()) / name
        self.decoded = 0  # images that `load` read from their inputs

    def load(self) -> tuple[npt.NDArray[np.uint8], ImageFacts]:
        """Return the images, memory-mapped and read-only, and what is known of them; decode what is not there.

        Every cached image is compared with its checksum. Of several processes one decodes and the others wait.

        Raises:
            UserError: if an image cannot be read, naming the first of those, or the cache cannot be written.
        """
        stamps = _hash_each(self.table.images.stamps())
        arrays = self._ready(stamps)
        if arrays is None:
            writable_folder(self.folder)
            with FileLock(self.folder / "lock"):
                arrays = self._ready(stamps)  # another process may have been faster
                if arrays is None:
                    arrays = self._build(stamps)
        pixels, records = arrays
        return pixels, ImageFacts(records["width"], records["height"], records["digest"])

    def _map(self, suffix: str) -> tuple[Array, Array] | None:
        """Map both arrays; None if one is missing, or not as this version would write it."""
        pixels, records = (read_array(self.folder / f"{name}.{suffix}") for name in ARRAYS)
        if pixels is None or records is None or (pixels.shape, pixels.dtype) != (self.shape, np.uint8):
            return None
        return (pixels, records) if (records.shape, records.dtype) == (self.shape[:1], RECORD) else None

    def _ready(self, stamps: Stamps) -> tuple[Array, Array] | None:
        """Map the arrays if they are complete, current and undamaged."""
        arrays = self._map("npy")
        return arrays if arrays is not None and _intact(*arrays, stamps).all() else None

    def _build(self, stamps: Stamps) -> tuple[Array, Array]:
        """Decode what the arrays lack and return them mapped."""
        try:
            self._fill(_intact(*self._begin(), stamps), stamps)
            for name in ARRAYS:
                (self.folder / f"{name}.part").replace(self.folder / f"{name}.npy")
        except OSError as error:
            raise UserError(f"cannot write the cache to {self.folder}: {error.strerror}") from error
        arrays = self._map("npy")
        assert arrays is not None
        return arrays

    def _begin(self) -> tuple[Array, Array]:
        """Map the part that an interrupted run left, or a copy of the complete arrays, or empty ones."""
        begun = self._map("part")
        if begun is not None:
            return begun
        needed = math.prod(self.shape)
        if needed > shutil.disk_usage(self.folder).free:
            raise UserError(f"the cache needs {needed / 1e9:.1f} GB at {self.folder}, more than is free there")
        complete = self._map("npy") is not None
        for name, shape, dtype in zip(ARRAYS, (self.shape, self.shape[:1]), (np.dtype(np.uint8), RECORD), strict=True):
            part = self.folder / f"{name}.part"
            if complete:
                shutil.copyfile(part.with_suffix(".npy"), part)
            else:
                np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        begun = self._map("part")
        assert begun is not None
        return begun

    def _fill(self, intact: npt.NDArray[np.bool_], stamps: Stamps) -> None:
        """Decode the images that are not ``intact`` [N] into the parts.

        Raises:
            UserError: naming the first of the images that cannot be read; all others are then in the parts.
        """
        images = self.table.images
        groups = [rows for rows in group_rows(images.origins) if not intact[rows].all()]
        problems = []
        with _RowWriter(self.folder / "images.part") as pixels, _RowWriter(self.folder / "records.part") as records:
            for block in read_pictures(images, groups, self.size, "decoding"):
                for rows, picture in block:
                    if isinstance(picture, ImageError):
                        problems.append(image_problem(picture, self.table.row_numbers[rows]))
                        continue
                    content = np.ascontiguousarray(picture.pixels).tobytes()
                    known = (zlib.crc32(content), picture.width, picture.height, digest_of(picture))
                    for row in rows.tolist():
                        pixels.write(row, content)
                        records.write(row, np.array((True, stamps[row], *known), RECORD).tobytes())
                self.decoded += len(block)
                pixels.flush()
                records.flush()
        raise_errors(problems)


class _RowWriter:
    """Writes rows of a .npy file in place. Unlike a memory map it reports a full disk as an error."""

    def __init__(self, path: Path) -> None:
        mapped = np.lib.format.open_memmap(path, mode="r")
        self._offset, self._row_bytes = mapped.offset, mapped[0].nbytes
        self._file = path.open("r+b")

    def write(self, row: int, content: bytes) -> None:
        """Write one row."""
        self._file.seek(self._offset + row * self._row_bytes)
        self._file.write(content)

    def flush(self) -> None:
        """Hand what was written to the system, so that it outlives the process."""
        self._file.flush()

    def __enter__(self) -> _RowWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _hash_each(texts: npt.NDArray[np.str_]) -> Stamps:
    """Return a number [N] for each text."""
    hashes = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.tolist())
    return np.frombuffer(b"".join(hashes), np.uint64)


def _intact(pixels: Array, records: Array, stamps: Stamps) -> npt.NDArray[np.bool_]:
    """Return which rows [N] are written, of the inputs' present state, and have their checksum."""
    intact = records["written"] & (records["stamp"] == stamps)
    rows = np.flatnonzero(intact)

    def check(part: Rows) -> npt.NDArray[np.bool_]:
        return np.array([zlib.crc32(pixels[row]) == records["checksum"][row] for row in part.tolist()], np.bool_)

    with ThreadPoolExecutor(reader_threads()) as pool:
        intact[rows] = np.concatenate([*pool.map(check, np.array_split(rows, 64)), np.empty(0, np.bool_)])
    return np.asarray(intact)


def cached_images(table: CohortTable, image_size: int, cache_dir: Path | None = None) -> npt.NDArray[np.uint8]:
    """Return the images of a table, [N, C, image_size, image_size] memory-mapped; the first call decodes them.

    Raises:
        UserError: if an image cannot be read, or the cache cannot be written.
    """
    return ImageCache(table, image_size, cache_dir).load()[0]

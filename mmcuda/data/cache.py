"""Arrays on disk that are built once and memory-mapped afterwards."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcuda.data.table import CohortTable
from mmcuda.errors import UserError
from mmcuda.files import write_atomically


def default_cache_dir() -> Path:
    """Return the folder of rendered data: ``$MMCUDA_CACHE``, or ``~/.cache/mmcuda``."""
    return Path(os.environ.get("MMCUDA_CACHE") or "~/.cache/mmcuda").expanduser()


def writable_folder(folder: Path) -> Path:
    """Make ``folder`` if need be and return it.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"cannot write the cache to {folder}: {error.strerror}. Choose another folder with MMCUDA_CACHE."
        ) from error
    return folder


def read_array(path: Path) -> np.ndarray[Any, Any] | None:
    """Memory-map a .npy file, read-only. Return None if the file is missing or damaged."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError):
        return None


def write_array(path: Path, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Write a .npy file, atomically, and return it memory-mapped, read-only."""
    write_atomically(path, lambda file: np.save(file, array))
    return np.lib.format.open_memmap(path, mode="r")


def cached_images(table: CohortTable, image_size: int, cache_dir: Path | None = None) -> npt.NDArray[np.uint8]:
    """Return the images of a table, [N, C, image_size, image_size] memory-mapped; the first call decodes them.

    Raises:
        ImageError: if an image cannot be read.
        UserError: if the cache cannot be written.
    """
    path = (cache_dir or default_cache_dir()) / f"{table.images.fingerprint()}-{image_size}px.npy"
    images = read_array(path)
    if images is None or len(images) != len(table):
        writable_folder(path.parent)
        images = write_array(path, np.stack([table.images.read(row, image_size) for row in range(len(table))]))
    return images

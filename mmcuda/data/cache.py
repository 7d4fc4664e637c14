"""Arrays on disk that are built once and memory-mapped afterwards."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

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

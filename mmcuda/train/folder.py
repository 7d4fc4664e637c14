"""The run folder: where every file lies, and files that are either whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcuda.errors import UserError
from mmcuda.files import write_atomically


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run's folder."""

    root: Path

    def checkpoint(self, name: str) -> Path:
        """Return the folder of the last checkpoint of the training ``name``."""
        return self.root / "checkpoints" / name / "last"

    def best_checkpoint(self, name: str) -> Path:
        """Return the folder of the best checkpoint of the training ``name``, if it stopped early."""
        return self.root / "checkpoints" / name / "best"

    def log(self, name: str) -> Path:
        """Return the table of the steps of the training ``name``."""
        return self.root / "logs" / f"{name}.csv"

    def validation_log(self, name: str) -> Path:
        """Return the table of the validation losses of the training ``name``, if it could stop early."""
        return self.root / "logs" / f"{name}-validation.csv"

    def tensorboard(self, name: str) -> Path:
        """Return the TensorBoard folder of the training ``name``."""
        return self.root / "logs" / "tensorboard" / name

    @property
    def config(self) -> Path:
        """The options as run."""
        return self.root / "config.yaml"

    def open(self, resume: bool) -> None:
        """Create the folder, or check that it may be continued.

        Raises:
            UserError: if the folder holds files and ``resume`` is false, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            used = any(self.root.iterdir())
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"--out must be a folder, got the file {error.filename}") from None
        except OSError as error:
            raise _cannot_write(self.root, error) from None
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise _cannot_write(self.root, PermissionError(13, "Permission denied"))
        if used and not resume:
            raise UserError(
                f"{self.root} is not empty. Continue that run with --resume, or choose another folder with --out."
            )


def _cannot_write(path: Path, error: OSError) -> UserError:
    reason = (error.strerror or str(error)).lower()
    return UserError(f"cannot write to {path}: {reason}. Choose another folder with --out.")


def new_file(path: Path, suffixes: tuple[str, ...]) -> Path:
    """Return ``path`` after checking that it can become a new file.

    Raises:
        UserError: if it exists, its folder does not, or its suffix is not one of ``suffixes``.
    """
    if path.suffix not in suffixes:
        raise UserError(f"--out must end in {' or '.join(suffixes)}, got {path}")
    if path.exists():
        raise UserError(f"{path} exists. Choose another file with --out.")
    if not path.parent.is_dir():
        raise UserError(f"--out must lie in an existing folder, got {path}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _cannot_write(path.parent, PermissionError(13, "Permission denied"))
    return path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it is moved to ``path`` when all went well, and removed otherwise.

    Raises:
        UserError: if ``path`` exists or cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} exists. Choose another folder with --out.")
    filled = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        filled.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(path, error) from None
    try:
        yield filled
        filled.rename(path)
    finally:
        shutil.rmtree(filled, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as .npz, atomically."""
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))

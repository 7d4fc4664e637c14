"""Configurations as YAML files: written, read back, compared."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jsonargparse

from mmcuda.errors import UserError
from mmcuda.train.folder import write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
NO_EFFECT = {"data.cache_dir"}  # may differ between a run and its continuation


def save_config(config: DataclassInstance, path: Path) -> None:
    """Write ``config`` as YAML, atomically."""
    parser = _parser(type(config))
    write_text(path, parser.dump(parser.parse_object(plain(asdict(config)))))


def load_config(kind: type[Config], path: Path) -> Config:
    """Read a configuration of class ``kind``.

    Raises:
        UserError: if the file is missing or does not describe a ``kind``.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    parser = _parser(kind)
    try:
        return kind(**parser.instantiate(parser.parse_path(str(path))))
    except (jsonargparse.ArgumentError, TypeError) as error:
        raise UserError(f"{path} is not a valid configuration: {' '.join(str(error).split())}") from None


def _parser(kind: type[DataclassInstance]) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    return parser


def check_same(path: Path, saved: DataclassInstance, now: DataclassInstance, may_differ: Collection[str] = ()) -> None:
    """Raise a UserError naming the first option in which a continued run differs from the run in ``path``.

    Args:
        path: of the saved configuration.
        saved: as saved.
        now: as continued.
        may_differ: options that may change between a run and its continuation.
    """
    before, after = (dict(_leaves(plain(asdict(config)))) for config in (saved, now))
    for option in after | before:
        if option not in NO_EFFECT and option not in may_differ and before.get(option) != after.get(option):
            raise UserError(
                f"cannot resume with --{option} {after.get(option)}: the run has {before.get(option)} in {path}. "
                "Drop the option, or choose another folder with --out."
            )


def plain(value: Any) -> Any:
    """Return ``value`` with paths as strings and tuples as lists, as YAML holds them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

"""Configurations as YAML files and as options of a parser: written, read back, compared.

A field of type ``Method`` holds the name of the method and its options, ``method: {name: simclr, temperature: 0.3}``; a
mapping of methods the options of each, ``methods: {simclr: {temperature: 0.3}}``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import jsonargparse
import yaml
from accelerate import Accelerator

from mmcuda.errors import UserError
from mmcuda.methods import Method, Methods, check_options, get_method, make_method, registered_methods
from mmcuda.train.folder import RunFolder, write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
NO_EFFECT = {"data.cache_dir"}  # may differ between a run and its continuation
OF_THE_ARM = {"labels"}  # options of a method that every arm of a study chooses itself


def add_options(
    parser: jsonargparse.ArgumentParser,
    kind: type[DataclassInstance],
    tree: Mapping[str, Any],
    prefix: str = "",
    skip: Collection[str] = (),
) -> None:
    """Add the fields of a configuration class to a parser, and the options of the methods that are chosen.

    Args:
        parser: to add to.
        kind: the class.
        tree: what is known of the values: the name of every ``Method``, the keys of every mapping of methods.
        prefix: key of the class in the parser.
        skip: fields that are left out.
    """
    own = {name: hint for name, hint in get_type_hints(kind).items() if _holds_methods(hint) and name not in skip}
    key = prefix.removesuffix(".") or None
    parser.add_class_arguments(kind, key, skip={*own, *skip}, instantiate=key is None)
    for name, hint in own.items():
        chosen = tree.get(name) or {}
        if hint is Method:
            default = getattr(kind(), name).name
            choices = list(registered_methods())
            method = get_method(chosen.get("name", default))
            check_options(method.name, chosen.keys() - {"name"})
            help_text = "; ".join(f"{name}: {method.summary}" for name, method in registered_methods().items())
            parser.add_argument(f"--{prefix}{name}.name", choices=choices, default=default, help=help_text)
            parser.add_class_arguments(method, f"{prefix}{name}", instantiate=False)
        elif hint == Methods:
            for each, options in chosen.items():
                check_options(each, options, OF_THE_ARM)
                parser.add_class_arguments(
                    get_method(each), f"{prefix}{name}.{each}", skip=OF_THE_ARM, instantiate=False
                )
        else:
            add_options(parser, hint, chosen, f"{prefix}{name}.")


def build(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Return the configuration of parsed values, from a parser with the options of ``kind``."""
    found = dict(values)
    for name, hint in get_type_hints(kind).items():
        if not _holds_methods(hint):
            continue
        held = dict(found.get(name) or {})
        if hint is Method:
            found[name] = make_method(held.pop("name"), held)
        elif hint == Methods:
            found[name] = {each: make_method(each, options) for each, options in held.items()}
        else:
            found[name] = build(hint, held)
    return kind(**found)


def _holds_methods(hint: Any) -> bool:
    """Return whether a field of this type holds methods, or a configuration that does."""
    if hint is Method or hint == Methods:
        return True
    return is_dataclass(hint) and any(_holds_methods(inner) for inner in get_type_hints(hint).values())


def tree_of(config: Any) -> Any:
    """Return a configuration as YAML holds it: paths as strings, tuples as lists, methods by name."""
    if is_dataclass(config):
        named = {"name": config.name} if isinstance(config, Method) else {}
        return named | {field.name: tree_of(getattr(config, field.name)) for field in fields(config)}
    if isinstance(config, dict):
        tree = {key: tree_of(item) for key, item in config.items()}
        for key, item in config.items():
            if isinstance(item, Method):
                tree[key] = {name: value for name, value in tree[key].items() if name not in {"name", *OF_THE_ARM}}
        return tree
    if isinstance(config, list | tuple):
        return [tree_of(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def read_tree(path: Path) -> dict[str, Any]:
    """Read a YAML file of options.

    Raises:
        UserError: if it is missing or no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a valid configuration: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a valid configuration: expected options, got {tree}")
    return tree


def save_config(config: DataclassInstance, path: Path) -> None:
    """Write ``config`` as YAML, atomically."""
    write_text(path, yaml.safe_dump(tree_of(config), sort_keys=False, default_flow_style=False, allow_unicode=True))


def load_config(kind: type[Config], path: Path) -> Config:
    """Read a configuration of class ``kind``.

    Raises:
        UserError: if the file is missing or does not describe a ``kind``.
    """
    tree = read_tree(path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    try:
        add_options(parser, kind, tree)
        return build(kind, parser.instantiate(parser.parse_object(tree)).as_dict())
    except (jsonargparse.ArgumentError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a valid configuration: {' '.join(str(error).split())}") from None


def check_same(path: Path, saved: DataclassInstance, now: DataclassInstance, may_differ: Collection[str] = ()) -> None:
    """Raise a UserError naming the first option in which a continued run differs from the run in ``path``.

    Args:
        path: of the saved configuration.
        saved: as saved.
        now: as continued.
        may_differ: options that may change between a run and its continuation; below a prefix such as ``methods.``
            new ones may come in.
    """
    may_come = tuple(option for option in may_differ if option.endswith("."))
    before, after = (dict(_leaves(tree_of(config))) for config in (saved, now))
    for option in after | before:
        if option in NO_EFFECT or option in may_differ or (option not in before and option.startswith(may_come)):
            continue
        if before.get(option) != after.get(option):
            raise UserError(
                f"cannot resume with --{option} {after.get(option)}: the run has {before.get(option)} in {path}. "
                "Drop the option, or choose another folder with --out."
            )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def open_folder(
    out: Path, config: DataclassInstance, resume: bool, accelerator: Accelerator, may_differ: Collection[str] = ()
) -> RunFolder:
    """Open a run folder for ``config``: a new one, or one of the same configuration to continue.

    Options named in ``may_differ`` may change when a run is continued; the folder then has their new values.

    Raises:
        UserError: if the folder holds files and ``resume`` is false, cannot be written, or holds another configuration.
    """
    folder = RunFolder(out)
    if accelerator.is_main_process:
        folder.open(resume)
        if folder.config.exists():
            check_same(folder.config, load_config(type(config), folder.config), config, may_differ)
        if may_differ or not folder.config.exists():
            save_config(config, folder.config)
    accelerator.wait_for_everyone()
    return folder

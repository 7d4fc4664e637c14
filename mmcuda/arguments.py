"""What a command line says before a parser knows its options: these depend on methods that it names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcuda.errors import UserError
from mmcuda.methods import get_method
from mmcuda.study.arms import parse_arm

FLAGS = ("-h", "--help", "--debug", "--resume", "--version", "--print_config")  # options without a value
SHORT = {"--data": "--data.source", "--method": "--method.name"}


def spell_out(words: Sequence[str]) -> list[str]:
    """Let ``--data lidc`` mean ``--data.source lidc``, and ``--method simclr`` ``--method.name simclr``."""
    return [re.sub(r"^--\w+(?=$|=)", lambda match: SHORT.get(match[0], match[0]), word) for word in words]


def scan(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the positional arguments, and every option with its value in the order in which they come."""
    positional: list[str] = []
    options: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            positional.append(word)
        elif name in FLAGS:
            options.append((name, value))
        else:
            options.append((name, value if equals else next(rest, "")))
    return positional, options


def method_choice(words: Sequence[str], default: str) -> tuple[list[str], dict[str, Any]]:
    """Return the command line and the tree of the method that it chooses.

    Options of other methods in files before the choice are taken out.

    Raises:
        UserError: if there is no such method, or it lacks an option that is given.
    """
    trees = {value: _load(value) for option, value in scan(words)[1] if option == "--config"}
    names = [value for option, value in scan(words)[1] if option == "--method.name"]
    names = names or [tree["method"]["name"] for tree in trees.values() if _names_method(tree)]
    name = names[-1] if names else default
    chosen: dict[str, Any] = {"name": get_method(name).name}
    replaced = {}
    for text, tree in trees.items():
        if _names_method(tree) and tree["method"]["name"] != name:
            replaced[text] = json.dumps({key: value for key, value in tree.items() if key != "method"}, default=str)
        elif isinstance(tree.get("method"), dict):
            chosen |= tree["method"]
    for option, value in scan(words)[1]:
        if option.startswith("--method.") and option != "--method.name":
            chosen[option.removeprefix("--method.")] = value
    return [replaced.get(word, word) for word in words], {"method": chosen}


def study_choice(words: Sequence[str], default: Sequence[str]) -> dict[str, Any]:
    """Return the tree of the methods that a study's arms use, with the options of them that are named.

    Raises:
        UserError: if an option names a method that no arm uses.
    """
    arms: list[list[str]] = []
    methods: dict[str, dict[str, Any]] = {}
    flags: dict[str, dict[str, Any]] = {}
    for option, value in scan(words)[1]:
        tree = _load(value) if option == "--config" else {}
        if option.removesuffix("+") == "--arms":
            tree = {"arms": _yaml(value)}
        if isinstance(tree.get("arms"), list):
            arms.append([str(arm) for arm in tree["arms"]])
        for name, options in (tree.get("methods") or {}).items():
            methods.setdefault(name, {}).update(options or {})
        if match := re.match(r"--methods\.(\w+)(?:\.(\w+))?$", option):
            flags.setdefault(match[1], {})[match[2] or "name"] = value
    now = [*arms[-1]] if arms else [*default]
    used = {_options_of(arm) for arm in now}
    for name in flags:
        shared = get_method(name).shares_options_with().name
        if shared != name:
            raise UserError(f"methods.{name}: {name} has the options of {shared}: set methods.{shared} instead")
        if name not in used:
            raise UserError(f"methods.{name}: no arm has this method; the arms are {', '.join(now)}")
    for name in {_options_of(arm) for each in [*arms, now] for arm in each} - {None}:
        methods.setdefault(str(name), {})
    for name, options in flags.items():
        methods[name].update(options)
    return {"methods": methods}


def _options_of(arm: str) -> str | None:
    """Return the method that has the options of an arm; None for no arm, which its configuration tells."""
    try:
        return parse_arm(arm).method.shares_options_with().name
    except UserError:
        return None


def _names_method(tree: Mapping[str, Any]) -> bool:
    return isinstance(tree.get("method"), dict) and "name" in tree["method"]


def _load(config: str) -> dict[str, Any]:
    """Return the tree of a --config, a file or YAML itself; the parser tells what is wrong with it."""
    try:
        text = Path(config).read_text() if Path(config).is_file() else config
    except (OSError, ValueError):
        text = config
    tree = _yaml(text)
    return tree if isinstance(tree, dict) else {}


def _yaml(text: str) -> Any:
    import yaml  # of the training flow's packages: `info` and `selfcheck` do without them

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None

"""The exceptions that the command line turns into a single clear line, and checks that raise them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong: the message names it, what was expected and what came."""


class Unfinished(RuntimeError):
    """A part of the work failed and the rest is done: the message says what, and how to go on."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown ``word``: the known one that is closest, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]}?" if close else ""


def check_range(option: str, value: float, low: float, high: float | None = None) -> None:
    """Raise a UserError naming ``option`` unless low <= value <= high."""
    if not value >= low or (high is not None and value > high):
        wanted = f"at least {low:g}" if high is None else f"in {low:g}..{high:g}"
        raise UserError(f"{option} must be {wanted}, got {value:g}")


def check_positive(option: str, value: float) -> None:
    """Raise a UserError naming ``option`` unless 0 < value < infinity."""
    if not 0 < value < float("inf"):
        raise UserError(f"{option} must be positive and finite, got {value:g}")

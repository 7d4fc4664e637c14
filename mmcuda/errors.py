"""The one exception that the command line turns into a single clear line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong: the message names it, what was expected and what came."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown ``word``: the known one that is closest, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]}?" if close else ""

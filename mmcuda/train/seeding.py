"""Seeds for everything random, each from the run's seed and its own purpose, so that a resumed run repeats itself."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: int | float | str) -> int:
    """Return a seed in 0..2^32-1 that depends on ``seed`` and ``purpose`` alone.

    Example:
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 3) != derive_seed(0, "order", 4)
        True
    """
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:4], "little")

"""Agreement between programs that may lose their device and the runner that starts them (steps.py).

After a failed kernel the process cannot use the device; a kernel that never ends blocks it. Such a program exits with
CONTINUE, and its last line, "continue with ARGUMENTS", says how a new process continues after the work that failed.
Where what failed is another package's, the exit code is RESTART: the step has not failed for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import NoReturn

CONTINUE, RESTART = 3, 5
NO_DEVICE = 77  # exit code of a program that found no device


def no_device() -> int:
    """Exit code of a program whose torch has no CUDA device."""
    print("torch has no CUDA device")
    return NO_DEVICE


def lose(reason: str, arguments: str, code: int = CONTINUE) -> NoReturn:
    """End the process at once: destructors would ask the device once more."""
    print(f"{reason}\ncontinue with {arguments}", flush=True)
    os._exit(code)


@contextlib.contextmanager
def watched(seconds: float, what: str, arguments: str, code: int = CONTINUE) -> Iterator[None]:
    """Lose the device if the body takes longer than `seconds`."""
    late = f"LOST {what}: no answer within {seconds:.0f} s"
    watchdog = threading.Timer(seconds, lose, (late, arguments, code))
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()

"""The compiled extension, or the reason why it is not there."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch  # noqa: F401  (loads the libraries that the extension links to)

native: ModuleType | None
missing_reason: str | None = None
try:
    native = importlib.import_module("mmcuda._C")
except ModuleNotFoundError as error:
    if error.name != "mmcuda._C":
        raise
    native = None
    missing_reason = "mmcuda._C was not built: reinstall mmcuda on a machine with a C++ compiler"


def why_not_fused(device_type: str) -> str | None:
    """Return None if fused kernels serve tensors on ``device_type``, else the reason why they do not."""
    if native is None:
        return missing_reason
    if device_type == "cpu":
        return None
    return f"no fused kernels for {device_type} tensors in this build"

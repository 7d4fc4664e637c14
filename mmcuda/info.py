"""What `mmcuda info` prints: versions, devices, instruction sets, and why something is not there."""

from __future__ import annotations

import platform

import torch

from mmcuda import __version__, _extension


def describe() -> str:
    """Return the state of this installation, one line a subject."""
    lines = [("mmcuda", f"{__version__}   torch {torch.__version__}   python {platform.python_version()}")]
    native = _extension.native
    if native is None:
        lines.append(("cpu kernels", f"none: {_extension.missing_reason}. The PyTorch reference serves"))
        lines.append(("cuda kernels", "none"))
    else:
        build = native.build_info()
        usable = ", ".join(reversed(build["cpu"]))
        threads = torch.get_num_threads()
        lines.append(("cpu kernels", f"{native.instruction_set()} (of: {usable})   {threads} threads"))
        lines.append(("cuda kernels", build["cuda"]))
        lines.append(("built by", f"{build['compiler']} against torch {build['torch']}"))
    lines.append(("device", _device()))
    return "\n".join(f"{name:<14}{text}" for name, text in lines)


def _device() -> str:
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    reason = "no NVIDIA driver or GPU was found" if torch.version.cuda else "this torch is built without CUDA"
    return f"cpu only: {reason}"

"""What `mmcuda info` prints: versions, devices, instruction sets, and why something is not there."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch
from torch.utils.collect_env import get_nvidia_driver_version, run

from mmcuda import __version__
from mmcuda._native import extension


def describe() -> str:
    """Return the state of this installation, one line a subject."""
    lines = [("mmcuda", f"{__version__}   torch {torch.__version__}   python {platform.python_version()}")]
    native = extension.native
    if native is None:
        lines.append(("cpu kernels", f"none: {extension.missing_reason}. The PyTorch reference serves"))
        lines.append(("cuda kernels", "none"))
    else:
        build = native.build_info()
        usable = ", ".join(reversed(build["cpu"]))
        threads = torch.get_num_threads()
        lines.append(("cpu kernels", f"{instruction_set()} (of: {usable})   {threads} threads"))
        lines.append(("cuda kernels", build["cuda"]))
        if build["cuda_architectures"]:
            lines += _versions(build["cuda_runtime"], build["cuda_driver"])
        lines.append(("built by", f"{build['compiler']} against torch {build['torch']}"))
    if reason := extension.why_no_cuda_device():
        lines.append(("device", f"cpu only: {reason}"))
    else:
        for index in range(torch.cuda.device_count()):
            device = torch.device("cuda", index)
            reason = extension.why_not_fused(device)
            kernels = "fused kernels" if reason is None else f"the PyTorch reference serves: {reason}"
            lines.append(("device", f"{device} {_name(device)}   {kernels}"))
    return "\n".join(f"{name:<14}{text}" for name, text in lines)


def _versions(runtime: int, driver: int) -> list[tuple[str, str]]:
    """Return the CUDA versions in play, and what each allows."""
    version, needed = extension.cuda_version, extension.needed_driver(runtime)
    return [
        ("cuda runtime", f"{version(runtime)} in the kernels, which needs a driver for {version(needed)} or newer"),
        ("cuda driver", f"{_driver()}, for CUDA {version(driver)} and older" if driver else "none was found"),
    ]


def conditions(device: torch.device) -> dict[str, str]:
    """Return what numbers measured on ``device`` depend on."""
    if device.type == "cuda":
        where = {"device": _name(device), "driver": _driver(), "CUDA": str(torch.version.cuda)}
    else:
        policy = os.environ.get("OMP_WAIT_POLICY", "not set")
        where = {"device": cpu_name(), "threads": str(torch.get_num_threads()), "OMP wait policy": policy}
    return where | {
        "torch": torch.__version__,
        "mmcuda": __version__,
        "CUDA kernels": "none" if extension.native is None else extension.native.build_info()["cuda"],
        "instruction set": instruction_set(),
    }


def instruction_set() -> str:
    """Return the instruction set of the CPU kernels in use."""
    return "none" if extension.native is None else str(extension.native.instruction_set())


def cpu_name() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return model[1] if model else platform.processor() or platform.machine()


def _name(device: torch.device) -> str:
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return f"{torch.cuda.get_device_name(device)} (compute capability {capability})"


def _driver() -> str:
    return get_nvidia_driver_version(run) or "unknown"  # type: ignore[no-untyped-call]

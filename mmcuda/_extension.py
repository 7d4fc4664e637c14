"""The compiled extension, or the reason why it is not there; on which devices its kernels run, or why they do not."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import torch

native: ModuleType | None
missing_reason: str | None = None
try:
    native = importlib.import_module("mmcuda._C")
except ModuleNotFoundError as error:
    if error.name != "mmcuda._C":
        raise
    native = None
    missing_reason = "mmcuda._C was not built: reinstall mmcuda on a machine with a C++ compiler"

COMPILED = "compiled for "  # begins the state of CUDA in build_info(), if there are kernels; their architectures follow
NEEDED = (8, 0)  # compute capability


def why_not_fused(device: torch.device | str) -> str | None:
    """Return None if fused kernels serve tensors on ``device``, else the reason why they do not."""
    if native is None:
        return missing_reason
    kind, index = (device.type, device.index) if isinstance(device, torch.device) else (device, None)
    if kind == "cpu":
        return None
    if kind != "cuda":
        return f"no fused kernels for {kind} tensors in this build"
    return _why_not_cuda(index)  # type: ignore[no-any-return]


def why_no_cuda_device() -> str | None:
    """Return None if torch has a CUDA device, else the reason why it has none."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    try:
        torch.empty(0, device="cuda")  # says what is wrong, such as a driver that is too old
    except RuntimeError as error:
        return str(error).split(". ")[0].strip()
    return "no CUDA device is visible"


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _why_not_cuda(index: int | None) -> str | None:
    return _cuda_reason(index)


@functools.cache  # asked in each call of a loss
def _cuda_reason(index: int | None) -> str | None:
    assert native is not None
    state: str = native.build_info()["cuda"]
    if not state.startswith(COMPILED):
        return f"this build has no CUDA kernels ({state})"
    if reason := why_no_cuda_device():
        return reason
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    has = f"{name} has compute capability {_dotted(capability)}"
    if capability < NEEDED:
        return f"{has}, the CUDA kernels need {_dotted(NEEDED)} or higher"
    if not any(_runs_on(capability, architecture) for architecture in state.removeprefix(COMPILED).split()):
        return f"{has}, the CUDA kernels are {state}: reinstall with TORCH_CUDA_ARCH_LIST={_dotted(capability)}"
    return None


def _runs_on(capability: tuple[int, int], architecture: str) -> bool:
    """Whether code for an architecture, as CMake writes it, runs: "80-virtual" is PTX, "80-real" binary, "80" both."""
    number, _, kind = architecture.partition("-")
    compiled = divmod(int(number.rstrip("af")), 10)
    if number.endswith("a"):  # "90a": for this architecture alone
        return compiled == capability
    one_major = kind == "real" or number.endswith("f")
    return compiled <= capability and (compiled[0] == capability[0] or not one_major)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))

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
    build = native.build_info()
    if not build["cuda_architectures"]:
        return f"this build has no CUDA kernels ({build['cuda']})"
    if reason := why_no_cuda_device():
        return reason
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    dotted = _dotted(capability)
    has = f"{name} has compute capability {dotted}"
    if capability < NEEDED:
        return f"{has}, the CUDA kernels need {_dotted(NEEDED)} or higher"
    codes = [_code_for(capability, architecture) for architecture in build["cuda_architectures"].split()]
    if not any(codes):
        compiled = build["cuda_architectures"]
        return f"{has}, the CUDA kernels are compiled for {compiled}: reinstall with TORCH_CUDA_ARCH_LIST={dotted}"
    runtime, driver = build["cuda_runtime"], build["cuda_driver"]
    needed = needed_driver(runtime) if "binary" in codes else runtime
    if driver < needed:
        other = f"the nvcc of CUDA {driver // 1000}" if "binary" in codes else f"TORCH_CUDA_ARCH_LIST={dotted}"
        return (
            f"the driver serves CUDA {cuda_version(driver)}, the CUDA kernels need {cuda_version(needed)}: update the"
            f" driver, or reinstall mmcuda with {other}"
        )
    return None


def needed_driver(runtime: int) -> int:
    """Return the oldest CUDA version a driver must serve for a CUDA runtime: any of the same major version."""
    return runtime // 1000 * 1000


def cuda_version(number: int) -> str:
    """Return the CUDA runtime's number for a version, such as 13000, as people write it: 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _code_for(capability: tuple[int, int], architecture: str) -> str | None:
    """Return which code of an architecture, as CMake writes it, runs: "80-real" has machine code, "80-virtual" PTX.

    Machine code runs on devices of the same major version, PTX on all newer ones: the driver compiles it and must
    therefore be as new as the compiler.
    """
    number, _, kind = architecture.partition("-")
    compiled = divmod(int(number.rstrip("af")), 10)
    same_major = compiled[0] == capability[0]
    if compiled > capability or (number.endswith("a") and compiled != capability):  # "90a": this architecture alone
        return None
    if kind != "virtual" and same_major:
        return "binary"
    return "ptx" if kind != "real" and (same_major or number.isdigit()) else None  # "100f": this major version


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))

"""Conditions of a check: the device, versions, clocks, and which state of the sources was run.

python machine.py            prints it
python machine.py --device   prints the device as JSON, or exits with 77 and the reason why there is none
"""

from __future__ import annotations

import ctypes
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from recovery import NO_DEVICE

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "triton", "numpy", "scikit-build-core", "pybind11", "cmake", "ninja")
CAPABILITY_MAJOR, CAPABILITY_MINOR, MULTIPROCESSORS = 75, 76, 16  # of the driver's CUdevice_attribute
TOOLKITS = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*", "/usr/local/cuda/compute-sanitizer")


def device_of_driver() -> dict[str, Any]:
    """The first device, asked of the driver itself; RuntimeError with the reason if there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as problem:
        raise RuntimeError(f"no driver: {problem}") from None

    def ask(function: str, *arguments: object) -> None:
        if code := getattr(driver, function)(*arguments):
            text = ctypes.c_char_p()
            driver.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{function}: {(text.value or b'error').decode()} ({code})")

    number, total, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(100)
    ask("cuInit", 0)
    ask("cuDeviceGetCount", ctypes.byref(number))
    if number.value == 0:
        raise RuntimeError("the driver has no device")
    ask("cuDeviceGetName", name, 100, 0)
    ask("cuDeviceTotalMem_v2", ctypes.byref(total), 0)

    def attribute(which: int) -> int:
        ask("cuDeviceGetAttribute", ctypes.byref(number), which, 0)
        return number.value

    return {
        "name": name.value.decode(),
        "capability": [attribute(CAPABILITY_MAJOR), attribute(CAPABILITY_MINOR)],
        "multiprocessors": attribute(MULTIPROCESSORS),
        "memory_gb": round(total.value / 1e9, 1),
    }


def device(seconds: float = 30) -> tuple[dict[str, Any] | None, str]:
    """The device, or None and the reason; in a process of its own, since a broken driver may not answer."""
    try:
        command = [sys.executable, __file__, "--device"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None, f"the driver did not answer within {seconds:.0f} s"
    if answer.returncode == 0:
        return json.loads(answer.stdout), ""
    return None, (answer.stdout + answer.stderr).strip()[-300:] or f"exit code {answer.returncode}"


def output(*command: str) -> str | None:
    """What a command prints; None if it is not there or fails."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def find(tool: str) -> str | None:
    """A tool of the CUDA toolkit, on the PATH or where it is usually installed."""
    folders = [str(path) for pattern in TOOLKITS for path in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)]
    return shutil.which(tool, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))


def tree_id(folder: Path) -> str:
    """What `git rev-parse COMMIT:FOLDER` prints for these files: it names the sources where there is no .git."""
    entries = []
    for path in folder.iterdir():
        if path.is_dir():
            if path.name != "__pycache__":
                entries.append((path.name + "/", b"40000", path.name, bytes.fromhex(tree_id(path))))
        else:
            content = path.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).digest()
            mode = b"100755" if os.access(path, os.X_OK) else b"100644"
            entries.append((path.name, mode, path.name, blob))
    body = b"".join(mode + b" " + name.encode() + b"\0" + blob for _, mode, name, blob in sorted(entries))
    return hashlib.sha1(b"tree %d\0" % len(body) + body).hexdigest()


def sources() -> dict[str, Any]:
    """Date, commit, and whether files differ from it."""
    status = output("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": output("git", "rev-parse", "HEAD") or "unknown: no .git",
        "dirty": None if status is None else bool(status),
        "trees": {name: tree_id(ROOT / name) for name in ("csrc", "mmcuda")},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Of everything that was compiled with or measured."""
    nvcc = find("nvcc")
    release = output(nvcc, "--version") if nvcc else None
    return {
        "python": platform.python_version(),
        "nvcc": release.splitlines()[-2] if release else "not installed",
        "driver": output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "none",
        "kernel": platform.release(),
        "cores": str(os.cpu_count()),
        **{package: version(package) for package in PACKAGES},
    }


def main() -> int:
    if "--device" in sys.argv:
        try:
            print(json.dumps(device_of_driver()))
        except RuntimeError as reason:
            print(reason)
            return NO_DEVICE
        return 0
    for name, value in (sources() | versions()).items():
        print(f"{name}: {value}")
    for tool in ("ncu", "compute-sanitizer"):
        print(f"{tool}: {find(tool)}")
    print(output("nvidia-smi") or "nvidia-smi: not there")
    print(output("nvidia-smi", "-q", "-d", "CLOCK,POWER,ECC,PERFORMANCE") or "")
    return 0


if __name__ == "__main__":
    sys.exit(main())

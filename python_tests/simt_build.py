"""Compiling the CUDA kernels for the CPU (csrc/simt) in a test, with sanitizers or planted bugs; running the result."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
PATCH = shutil.which("patch")
PLANTED = Path(__file__).parent / "planted"
needs_patch = pytest.mark.skipif(PATCH is None, reason="no patch: bugs cannot be planted")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no g++: the kernels cannot be compiled for the CPU")


class Sanitizer(NamedTuple):
    options: list[str]  # of the compiler
    libraries: list[str]  # that must be loaded before a program that is not compiled with it
    environment: dict[str, str]


SANITIZERS = {
    "plain": Sanitizer([], [], {}),
    "address": Sanitizer(
        ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        ["libasan.so", "libstdc++.so"],
        {"ASAN_OPTIONS": "detect_leaks=0"},
    ),
    "thread": Sanitizer(
        ["-fsanitize=thread"],
        ["libtsan.so", "libstdc++.so"],
        {"TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0:ignore_noninstrumented_modules=1"},
    ),
}


def compiled(*arguments):
    command = [COMPILER, "-std=c++20", "-fPIC", "-DMMCUDA_SIMT", "-fno-strict-aliasing", "-Wno-unknown-pragmas"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    if "cannot find -l" in done.stderr or "cannot find lib" in done.stderr:
        pytest.skip(f"the compiler comes without this sanitizer: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def run(sanitizer, *command, timeout=60, preload=False, **environment):
    """Return exit status and output; `preload`: the program is not compiled with the sanitizer, what it loads is."""
    environment = os.environ | SANITIZERS[sanitizer].environment | environment
    if preload:
        paths = (
            subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
            for name in SANITIZERS[sanitizer].libraries
        )
        environment["LD_PRELOAD"] = " ".join(path.strip() for path in paths)
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, timeout=timeout)
    output = done.stdout + done.stderr
    if "unexpected memory mapping" in output:
        pytest.skip("the thread sanitizer cannot run under this kernel's address layout")
    return done.returncode, output


def bugs(kind):
    """Return the bugs of a folder of patches: "kernels" for csrc/cuda, "selftest" for csrc/simt/selftest."""
    return sorted(path.stem for path in (PLANTED / kind).glob("*.patch"))


def source_with(kind, bug, folder):
    """Copy csrc below ``folder``, with a bug patched into it, and return the copy; without a bug csrc itself."""
    if bug is None:
        return CSRC
    copy = folder / kind / bug / "csrc"
    if not copy.exists():
        shutil.copytree(CSRC, copy)
        patch = PLANTED / kind / f"{bug}.patch"
        options = ["-p1", "--batch", "--fuzz=0", "--no-backup-if-mismatch", f"--directory={copy.parent}"]
        done = subprocess.run([PATCH, *options, f"--input={patch}"], capture_output=True, text=True)
        assert done.returncode == 0, f"{patch} does not apply to csrc: renew it\n{done.stdout}"
    return copy

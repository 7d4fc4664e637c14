"""Bugs planted in the CUDA kernels, one at a time, are caught when the kernels run on the CPU and are compared."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
KERNELS = ["launch", "launch_bfloat16", "launch_float16", "launch_float32", "launch_float64"]
SANITIZERS = {
    "plain": ([], [], {}),
    "address": (["-fsanitize=address"], ["libasan.so", "libstdc++.so"], {"ASAN_OPTIONS": "detect_leaks=0"}),
    "thread": (
        ["-fsanitize=thread"],
        ["libtsan.so", "libstdc++.so"],
        {"TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0:ignore_noninstrumented_modules=1"},
    ),
}
# bug: the sanitizer that sees it
BUGS = {
    "kMissingBarrier": "plain",
    "kWaitForOneFewer": "plain",
    "kWrongFragmentColumn": "plain",
    "kSwizzleMismatch": "plain",
    "kMisalignedRow": "plain",
    "kUnmaskedTail": "plain",
    "kDivergentCollective": "plain",
    "kMirroredTile": "plain",
    "kOutOfBoundsRow": "address",
    "kSharedRace": "thread",
}
CASES = ["50xselfx24", "300xselfx128", "140x150"]  # of check.py

pytestmark = [pytest.mark.slow, pytest.mark.skipif(COMPILER is None, reason="no g++: the kernels cannot be compiled")]


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Return check(sanitizer, bug): exit status and output of csrc/simt/check.py on bfloat16 kernels with the bug."""
    folder = tmp_path_factory.mktemp("planted")

    def compiled(*arguments):
        command = [COMPILER, "-std=c++20", "-fPIC", "-DMMCUDA_SIMT", "-fno-strict-aliasing", "-Wno-unknown-pragmas"]
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def built(source, *options):
        target = folder / ("_".join([source.stem, *(o.strip("-") for o in options)]).replace("=", "_") + ".o")
        if not target.exists():
            compiled("-x", "c++", "-c", source, *options, "-o", target)
        return target

    def check(sanitizer, bug):
        options, preloaded, environment = SANITIZERS[sanitizer]
        objects = [built(CSRC / "simt/simt.cpp", "-O2"), built(CSRC / "simt/entry.cpp", "-O1", *options)]
        for kernel in KERNELS:
            plant = [f"-DMMCUDA_PLANT={bug}"] if kernel == "launch_bfloat16" and bug else []
            objects.append(built(CSRC / f"cuda/{kernel}.cu", "-O1", *options, *plant))
        library = folder / f"{sanitizer}_{bug}.so"
        compiled("-shared", *objects, *options, "-o", library)
        paths = (
            subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
            for name in preloaded
        )
        environment = os.environ | environment | {"LD_PRELOAD": " ".join(path.strip() for path in paths)}
        output = ""
        for case in CASES:
            command = [sys.executable, CSRC / "simt/check.py", library, "--dtype", "bfloat16", "--only", case]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
            output += done.stdout + done.stderr
            if done.returncode:
                return done.returncode, output
        return 0, output

    return check


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_kernels_without_a_bug_pass(check, sanitizer):
    status, output = check(sanitizer, None)
    assert status == 0, output
    assert "ok " in output


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_caught(check, bug):
    status, output = check(BUGS[bug], bug)
    assert status != 0, output

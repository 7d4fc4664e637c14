"""The harness that runs CUDA kernels on the CPU: its own kernels pass, and every bug planted in them is caught."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
SANITIZERS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0"}

# bug: where it is caught, and by which words
BUGS = {
    "kMissingBarrier": ("plain", r"bfloat16 .* is -?nan"),
    "kMissingWait": ("plain", r"bfloat16 .* is -?nan"),
    "kWaitForOneFewer": ("plain", r"bfloat16 .* is -?nan"),
    "kWrongFragmentColumn": ("plain", r"bfloat16 .* wanted"),
    "kSwizzleMismatch": ("plain", r"bfloat16 .* wanted"),
    "kMisalignedRow": ("plain", r"misaligned: ldmatrix \(.*selftest.cuh:\d+\).*gram_kernel.* block \(0, 0, 0\)"),
    "kUnmaskedTail": ("plain", r"bfloat16 .* wanted"),
    "kDivergentCollective": ("plain", r"divergence: __shfl_xor_sync .* waits for thread 16, which waits at __syncth"),
    "kOutOfBoundsRow": ("address", r"a sanitizer stopped in kernel .*gram_kernel.*block \(0, 0, 0\), thread \("),
    "kSharedRace": ("thread", r"data race .*store_shared"),
    "kMirroredTile": ("plain", r"bfloat16 .* wanted"),
    "kMissingWarpBarrier": ("thread", r"data race .*(load|store)_shared"),
    "kGlobalRace": ("thread", r"data race .*store_global"),
    "kEarlyReturn": ("plain", r"divergence: the thread has returned from the kernel, .* __syncthreads"),
    "kSharedOverflow": ("plain", r"out of bounds: cp.async to shared memory .* at byte 24560 of 24560"),
    "kMaskWithoutCaller": ("plain", r"__ballot_sync .* the mask fffffffe lacks the caller, lane 0, .*collect_kernel"),
    "kShuffleOutside": ("plain", r"__shfl_xor_sync .* reads lane 16, which the mask 0000ffff lacks"),
    "kWriteBehindEnd": ("plain", r"somebody wrote behind the 1024 bytes of shared memory"),
}  # fmt: skip

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no g++: the kernels cannot be compiled for the CPU")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simt")

    def compiled(*arguments):
        command = [COMPILER, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if "cannot find -l" in done.stderr or "cannot find lib" in done.stderr:
            pytest.skip(f"the compiler comes without this sanitizer: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr

    for name, options in {"simt": [], "ucontext": ["-DMMCUDA_SIMT_UCONTEXT"]}.items():
        compiled("-O2", *options, "-c", CSRC / "simt/simt.cpp", "-o", folder / f"{name}.o")

    def build(sanitizer, plant="0", runtime="simt"):
        program = folder / f"selftest_{sanitizer}_{plant}_{runtime}"
        options = ["-O1", "-g1", "-DMMCUDA_SIMT", f"-DMMCUDA_PLANT={plant}", *SANITIZERS[sanitizer]]
        compiled(*options, CSRC / "simt/selftest.cpp", folder / f"{runtime}.o", "-o", program)
        return program

    return build


def run(program, seed=0):
    environment = {**os.environ, **ENVIRONMENT, "MMCUDA_SIMT_SEED": str(seed)}
    done = subprocess.run([program], capture_output=True, text=True, env=environment, timeout=60)
    output = done.stdout + done.stderr
    if "unexpected memory mapping" in output:
        pytest.skip("the thread sanitizer cannot run under this kernel's address layout")
    return done.returncode, output


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_passes(build, sanitizer):
    program = build(sanitizer)
    for seed in range(3):
        assert run(program, seed) == (0, "selftest: passed\n")


def test_passes_with_ucontext(build):
    assert run(build("plain", runtime="ucontext")) == (0, "selftest: passed\n")


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_caught(build, bug):
    sanitizer, words = BUGS[bug]
    status, output = run(build(sanitizer, bug))
    assert status != 0
    assert re.search(words, output), output

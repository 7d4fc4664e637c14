"""The harness that runs CUDA kernels on the CPU: its own kernels pass, and every bug planted in them is caught."""

import re

import pytest
from simt_build import CSRC, SANITIZERS, compiled, needs_compiler, run

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

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simt")
    for name, options in {"simt": [], "ucontext": ["-DMMCUDA_SIMT_UCONTEXT"]}.items():
        compiled(
            "-O2", "-Wall", "-Wextra", "-Werror", *options, "-c", CSRC / "simt/simt.cpp", "-o", folder / f"{name}.o"
        )

    def build(sanitizer, plant="0", runtime="simt"):
        program = folder / f"selftest_{sanitizer}_{plant}_{runtime}"
        options = [
            "-O1",
            "-g1",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-DMMCUDA_PLANT={plant}",
            *SANITIZERS[sanitizer].options,
        ]
        compiled(*options, CSRC / "simt/selftest.cpp", folder / f"{runtime}.o", "-o", program)
        return program

    return build


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_passes(build, sanitizer):
    program = build(sanitizer)
    for seed in range(3):
        assert run(sanitizer, program, MMCUDA_SIMT_SEED=str(seed)) == (0, "selftest: passed\n")


def test_passes_with_ucontext(build):
    assert run("plain", build("plain", runtime="ucontext")) == (0, "selftest: passed\n")


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_caught(build, bug):
    sanitizer, words = BUGS[bug]
    status, output = run(sanitizer, build(sanitizer, bug))
    assert status != 0
    assert re.search(words, output), output

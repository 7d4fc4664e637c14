"""The harness that runs CUDA kernels on the CPU: its own kernels pass, and every bug planted in them is caught."""

import re

import pytest
from simt_build import CSRC, SANITIZERS, bugs, compiled, needs_compiler, needs_patch, run, source_with

# bug: where it is caught, and by which words
BUGS = {
    "missing_barrier": ("plain", r"bfloat16 .* is -?nan"),
    "missing_wait": ("plain", r"bfloat16 .* is -?nan"),
    "wait_for_one_fewer": ("plain", r"bfloat16 .* is -?nan"),
    "wrong_fragment_column": ("plain", r"bfloat16 .* wanted"),
    "swizzle_mismatch": ("plain", r"bfloat16 .* wanted"),
    "misaligned_row": ("plain", r"misaligned: ldmatrix \(.*selftest.cuh:\d+\).*gram_kernel.* block \(0, 0, 0\)"),
    "unmasked_tail": ("plain", r"bfloat16 .* wanted"),
    "divergent_collective": ("plain", r"divergence: __shfl_xor_sync .* waits for thread 16, which waits at __syncth"),
    "out_of_bounds_row": ("address", r"a sanitizer stopped in kernel .*gram_kernel.*block \(0, 0, 0\), thread \("),
    "shared_race": ("thread", r"data race .*store_shared"),
    "mirrored_tile": ("plain", r"bfloat16 .* wanted"),
    "missing_warp_barrier": ("thread", r"data race .*(load|store)_shared"),
    "global_race": ("thread", r"data race .*store_global"),
    "early_return": ("plain", r"divergence: the thread has returned from the kernel, .* __syncthreads"),
    "shared_overflow": ("plain", r"out of bounds: cp.async to shared memory .* at byte 24560 of 24560"),
    "mask_without_caller": ("plain", r"__ballot_sync .* the mask fffffffe lacks the caller, lane 0, .*collect_kernel"),
    "shuffle_outside": ("plain", r"__shfl_xor_sync .* reads lane 16, which the mask 0000ffff lacks"),
    "write_behind_end": ("plain", r"somebody wrote behind the 1024 bytes of shared memory"),
}  # fmt: skip

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simt")
    for name, options in {"simt": [], "ucontext": ["-DMMCUDA_SIMT_UCONTEXT"]}.items():
        compiled(
            "-O2", "-Wall", "-Wextra", "-Werror", *options, "-c", CSRC / "simt/simt.cpp", "-o", folder / f"{name}.o"
        )

    def build(sanitizer, bug=None, runtime="simt"):
        program = folder / f"selftest_{sanitizer}_{bug}_{runtime}"
        options = [
            "-O1",
            "-g1",
            "-Wall",
            "-Wextra",
            "-Werror",
            *SANITIZERS[sanitizer].options,
        ]
        source = source_with("selftest", bug, folder) / "simt/selftest.cpp"
        compiled(*options, source, folder / f"{runtime}.o", "-o", program)
        return program

    return build


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_passes(build, sanitizer):
    program = build(sanitizer)
    for seed in range(3):
        assert run(sanitizer, program, MMCUDA_SIMT_SEED=str(seed)) == (0, "selftest: passed\n")


def test_passes_with_ucontext(build):
    assert run("plain", build("plain", runtime="ucontext")) == (0, "selftest: passed\n")


def test_every_bug_is_known():
    assert bugs("selftest") == sorted(BUGS)


@needs_patch
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_caught(build, bug):
    sanitizer, words = BUGS[bug]
    status, output = run(sanitizer, build(sanitizer, bug))
    assert status != 0
    assert re.search(words, output), output

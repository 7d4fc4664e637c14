"""Bugs planted in the CUDA kernels, one at a time, are caught when the kernels run on the CPU and are compared."""

import sys

import pytest
from simt_build import CSRC, SANITIZERS, compiled, needs_compiler, run

KERNELS = ["launch", "launch_bfloat16", "launch_float16", "launch_float32", "launch_float64"]
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
CHECK = CSRC.parent / "benchmarks/gpu/launchers/check.py"
CASES = ["50xselfx24", "300xselfx128", "140x150"]  # of CHECK

pytestmark = [pytest.mark.slow, needs_compiler]


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Return check(sanitizer, bug): exit status and output of CHECK on bfloat16 kernels with the bug."""
    folder = tmp_path_factory.mktemp("planted")

    def built(source, *options):
        target = folder / ("_".join([source.stem, *(o.strip("-") for o in options)]).replace("=", "_") + ".o")
        if not target.exists():
            compiled("-x", "c++", "-c", source, *options, "-o", target)
        return target

    def check(sanitizer, bug):
        options = SANITIZERS[sanitizer].options
        objects = [built(CSRC / "simt/simt.cpp", "-O2"), built(CSRC / "simt/entry.cpp", "-O1", *options)]
        for kernel in KERNELS:
            plant = [f"-DMMCUDA_PLANT={bug}"] if kernel == "launch_bfloat16" and bug else []
            objects.append(built(CSRC / f"cuda/{kernel}.cu", "-O1", *options, *plant))
        library = folder / f"{sanitizer}_{bug}.so"
        compiled("-shared", *objects, *options, "-o", library)
        output = ""
        for case in CASES:
            command = [sys.executable, CHECK, library, "--dtype", "bfloat16", "--only", case]
            status, more = run(sanitizer, *command, timeout=600, preload=True)
            output += more
            if status:
                return status, output
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

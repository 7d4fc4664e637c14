"""Bugs planted in the CUDA kernels, one at a time, are caught when the kernels run on the CPU and are compared."""

import sys

import pytest
from simt_build import CSRC, PLANTED, SANITIZERS, bugs, compiled, needs_compiler, needs_patch, run, source_with

KERNELS = ["launch", "launch_bfloat16", "launch_float16", "launch_float32", "launch_float64"]
SANITIZER = {"out_of_bounds_row": "address", "shared_race": "thread"}  # that sees the bug; the others are plainly wrong
CHECK = CSRC.parent / "benchmarks/gpu/launchers/compare.py"
CASES = ["50xselfx24", "300xselfx128", "140x150"]  # of CHECK

pytestmark = needs_patch


@pytest.mark.parametrize(("kind", "bug"), [(kind, bug) for kind in ("kernels", "selftest") for bug in bugs(kind)])
def test_patch_applies(tmp_path, kind, bug):
    """It changes what it names and begins by saying what is wrong then."""
    text = (PLANTED / kind / f"{bug}.patch").read_text()
    assert text.split("\n\n")[0].endswith(".")
    copy = source_with(kind, bug, tmp_path)
    changed = [path for path in copy.rglob("*") if path.is_file() and path.read_bytes() != original(path, copy)]
    assert len(changed) == text.count("\n+++ ")


def original(path, copy):
    return (CSRC / path.relative_to(copy)).read_bytes()


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Return check(sanitizer, bug): exit status and output of CHECK on bfloat16 kernels with the bug."""
    folder = tmp_path_factory.mktemp("planted")

    def built(source, *options, bug=None):
        parts = [source.stem, *(option.strip("-") for option in options), bug or ""]
        target = folder / ("_".join(parts).replace("=", "_") + ".o")
        if not target.exists():
            compiled("-x", "c++", "-c", source, *options, "-o", target)
        return target

    def check(sanitizer, bug):
        options = SANITIZERS[sanitizer].options
        objects = [built(CSRC / "simt/simt.cpp", "-O2"), built(CSRC / "simt/entry.cpp", "-O1", *options)]
        for kernel in KERNELS:
            planted = bug if kernel == "launch_bfloat16" else None
            source = source_with("kernels", planted, folder) / f"cuda/{kernel}.cu"
            objects.append(built(source, "-O1", *options, bug=planted))
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


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_kernels_without_a_bug_pass(check, sanitizer):
    status, output = check(sanitizer, None)
    assert status == 0, output
    assert "ok " in output


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("bug", bugs("kernels"))
def test_bug_is_caught(check, bug):
    status, output = check(SANITIZER.get(bug, "plain"), bug)
    assert status != 0, output

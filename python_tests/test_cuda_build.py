"""What a build does with the nvcc that it finds: as CMake configures it, nothing is compiled."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NVCC, CMAKE = shutil.which("nvcc"), shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

pytestmark = pytest.mark.skipif(NVCC is None or CMAKE is None, reason="nvcc and cmake are needed to configure a build")
OLD = f"""#!/bin/sh
case "$*" in
  *compress-mode*) echo "nvcc fatal   : Unknown option '-compress-mode=size'" >&2; exit 1;;
  *1[02]0*) echo "nvcc fatal   : Unsupported gpu architecture 'compute_120'" >&2; exit 1;;
  --version) echo "Cuda compilation tools, release 12.4, V12.4.131"; exit 0;;
esac
exec {NVCC} "$@"
"""
BROKEN = """#!/bin/sh
echo 'nvcc fatal   : "cicc" died due to signal 9' >&2
exit 1
"""


@pytest.fixture
def configure(tmp_path):
    """Return configure(nvcc, **environment): exit status, the line about CUDA, and the options of nvcc."""

    def run(script, **environment):
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.parent.mkdir(exist_ok=True)
        nvcc.write_text(script)
        nvcc.chmod(0o755)
        command = [CMAKE, "-S", ROOT, "-B", tmp_path / "build", f"-DPython_EXECUTABLE={sys.executable}"]
        pybind11 = [sys.executable, "-m", "pybind11", "--cmakedir"]
        folder = subprocess.run(pybind11, capture_output=True, text=True, check=True).stdout.strip()
        command += [f"-Dpybind11_DIR={folder}", *(f"-D{name}={value}" for name, value in environment.items())]
        path = f"{nvcc.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(command, env=os.environ | environment | {"PATH": path}, capture_output=True, text=True)
        found = re.search("CUDA kernels: (.*)", done.stdout)
        rules = "".join(path.read_text() for path in (tmp_path / "build").rglob("flags.make"))
        return done.returncode, found[1] if found else done.stderr, rules

    return run


def test_old_nvcc_compiles_for_the_architectures_that_it_knows(configure):
    status, line, rules = configure(OLD)
    assert status == 0
    assert line == (
        "compiled by nvcc 12.4 for 80-virtual 80-real 90-real, not for 100-real 120-real: "
        "nvcc fatal   : Unsupported gpu architecture 'compute_120'"
    )
    assert "sm_90" in rules
    assert "sm_100" not in rules
    assert "compress-mode" not in rules


def test_broken_nvcc_leaves_the_kernels_of_the_cpu(configure):
    status, line, rules = configure(BROKEN)
    assert status == 0
    assert line.startswith("not compiled: ")
    assert line.endswith('cannot compile a kernel: nvcc fatal   : "cicc" died due to signal 9')
    assert "kernels_portable" in rules or "MMCUDA_ISA=portable" in rules
    assert "USE_CUDA" not in rules


def test_broken_nvcc_is_an_error_where_cuda_is_asked_for(configure):
    status, line, _ = configure(BROKEN, MMCUDA_CUDA="ON")
    assert status != 0
    assert "cannot compile a kernel" in line


def test_architectures_that_the_kernels_cannot_serve_are_named(configure):
    status, line, _ = configure(f'#!/bin/sh\nexec {NVCC} "$@"\n', TORCH_CUDA_ARCH_LIST="7.5 9.0+PTX")
    assert status == 0
    assert re.fullmatch(
        r"compiled by nvcc [\d.]+ for 90, not for 75-real: the kernels need compute capability 8.0 or higher", line
    )

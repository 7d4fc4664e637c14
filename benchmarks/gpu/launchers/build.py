"""The launchers without torch, compiled by nvcc for one architecture, source files side by side.

    python build.py FOLDER ARCHITECTURE NVCC     e.g. build.py build/gpu 90 nvcc

FOLDER gets libkernels.so, for compare.py.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = ["-O3", "-std=c++20", "-lineinfo", "-Xcompiler", "-fPIC"]


def run(name: str, command: list[object]) -> bool:
    begin = time.monotonic()
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(f"{name}: exit code {done.returncode}, {time.monotonic() - begin:.1f} s\n{done.stdout}", end="", flush=True)
    return done.returncode == 0


def main() -> int:
    folder, architecture, nvcc = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
    folder.mkdir(parents=True, exist_ok=True)
    compiler = [nvcc, *OPTIONS, "-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    sources = [*sorted((ROOT / "csrc/cuda").glob("launch*.cu")), ROOT / "csrc/simt/entry.cpp"]
    objects = [folder / f"{source.stem}.o" for source in sources]
    jobs = {source.name: [*compiler, "-c", source, "-o", out] for source, out in zip(sources, objects, strict=True)}
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(run, jobs, jobs.values()))
    link = [*compiler, "-shared", "-cudart", "shared", *objects, "-o", folder / "libkernels.so"]
    return int(not (all(made) and run("libkernels.so", link)))


if __name__ == "__main__":
    sys.exit(main())

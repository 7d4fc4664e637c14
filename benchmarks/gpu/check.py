"""Check of the CUDA kernels on one GPU within a few minutes: are they right, and how fast are they?

    python benchmarks/gpu/check.py OUT [--seconds 470] [--wheels .whl]

Builds the extension and, without torch, the launchers for this device; compares both with float64; runs them under
compute-sanitizer; then, with the device to itself, measures its rates, times the losses beside their peers, and
profiles the kernels. Each step has its own time limit; one that fails or is slow costs nobody else anything.

OUT gets seven files: summary.json (states, facts), machine.txt, build.txt, launchers.txt, torch.txt, timings.json,
ncu.txt. `report.py OUT` makes tables of them. Exit code: 0 if all steps that ran have passed, 1 if one has not, 2 if
the arguments are wrong, 4 if steps were left out though there is a device. Without a device the steps that can run on
the CPU do, with tiny sizes; the others end as "no device".

Nothing is downloaded. WHEELS may hold wheels of packages that this machine lacks: memeff, inf-cl, cut-cross-entropy and
siglip-kernel, to be timed beside ours, or a build dependency.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import machine
from steps import WITHOUT_DEVICE, Runner, Step, quoted

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "benchmarks/gpu"
WORK = ROOT / "build/gpu"
SITE = WORK / "site"  # packages of this check
FILES = ("machine.txt", "build.txt", "launchers.txt", "torch.txt", "timings.json", "ncu.txt")
DTYPES = ("bfloat16", "float32", "tf32", "float16", "float64")
BUILD_SECONDS = {"cuda": 220, "cpu": 400}  # where there is no device, a build may take nearly all of the time
STAND_IN = [9, 0]  # the compute capability that is compiled for where there is no device
NCU_SECTIONS = (
    "SpeedOfLight",
    "LaunchStats",
    "Occupancy",
    "MemoryWorkloadAnalysis",
    "ComputeWorkloadAnalysis",
    "WarpStateStats",
)
PROFILED = ((8192, 128, "bf16"), (8192, 128, "fp32"), (8192, 128, "tf32"), (32768, 128, "bf16"), (8192, 512, "bf16"))
NCU_SECONDS = (40, 20)  # of the first of them, of each other
# An editable install has an import hook, which comes before the path: it would hide the extension that was just built.
SITE_CUSTOMIZE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Redirecting' not in type(f).__name__]"

PYTHON = quoted(sys.executable)
WITH_SITE = f"PYTHONPATH={quoted(SITE)}${{PYTHONPATH:+:$PYTHONPATH}}"


def script(name: str, *arguments: object) -> str:
    return f"PYTHONUNBUFFERED=1 {WITH_SITE} {PYTHON} {quoted(HERE / name, *arguments)}"


def cudart(nvcc: str) -> str:
    """The CUDA runtime that comes with nvcc, or torch's."""
    toolkit = Path(nvcc).resolve().parents[1]
    folders = [toolkit / "lib64", toolkit / "lib", toolkit / "targets/x86_64-linux/lib"]
    folders += Path(sys.prefix).glob("lib/python*/site-packages/nvidia/cu*/lib")
    found = [path for folder in folders for path in sorted(folder.glob("libcudart.so.*"))]
    return str(found[0]) if found else "libcudart.so"


def build_steps(device: dict[str, Any] | None, nvcc: str | None, wheels: Path) -> list[Step]:
    capability = device["capability"] if device else STAND_IN
    limit = BUILD_SECONDS["cuda" if device else "cpu"]
    lacks = "" if nvcc else "nvcc"
    number = "".join(map(str, capability))
    build = [HERE / "launchers/build.py", WORK, number, nvcc]
    target = f"arch=compute_{number},code=sm_{number}"
    ceilings = [nvcc, "-O3", "-std=c++20", "-gencode", target, HERE / "ceilings.cu", "-o", WORK / "ceilings"]
    pip = f"{PYTHON} -m pip install --no-index --no-deps --no-compile --upgrade --target {quoted(SITE)}"
    settings = {
        "TORCH_CUDA_ARCH_LIST": ".".join(map(str, capability)),
        "MMCUDA_CUDA": "ON",
        "MMCUDA_SIMT": "OFF",
        **({"CUDACXX": quoted(nvcc)} if nvcc else {}),  # it need not be on the PATH
        "CMAKE_BUILD_PARALLEL_LEVEL": os.cpu_count(),
        "PIP_DISABLE_PIP_VERSION_CHECK": 1,
    }
    carried = f"if compgen -G {quoted(wheels)}'/*.whl'; then {pip} {quoted(wheels)}/*.whl; fi"
    commands = [
        "export " + " ".join(f"{name}={value}" for name, value in settings.items()),
        f"export {WITH_SITE}",
        f"{pip} --verbose --no-build-isolation -C build-dir={quoted(WORK / 'cmake')} .",
        f"echo {quoted(SITE_CUSTOMIZE)} > {quoted(SITE / 'sitecustomize.py')}",
        f"cd / && {PYTHON} -m mmcuda info",
        f"{PYTHON} -c 'import mmcuda; print(mmcuda.__file__)' | grep -F {quoted(SITE)}",
    ]
    return [
        Step("wheels", f"rm -rf {quoted(SITE)}; {carried}", 60, "build.txt"),
        Step("build launchers", f"{PYTHON} {quoted(*build)}", limit, "build.txt", lacks=lacks),
        Step("build ceilings", quoted(*ceilings), 100, "build.txt", lacks=lacks),
        Step("build extension", " && ".join(commands), limit, "build.txt", after=("wheels",), lacks=lacks),
    ]


def launcher_steps(nvcc: str) -> list[Step]:
    """The launchers without torch: every case of every dtype, then few cases under each sanitizer."""
    check = [
        "env",
        "OPENBLAS_NUM_THREADS=1",
        sys.executable,
        HERE / "launchers/compare.py",
        WORK / "libkernels.so",
        "--cudart",
        cudart(nvcc),
    ]
    common = {"file": "launchers.txt", "needs": ("build launchers",), "needs_device": True}
    steps = []
    for dtype in DTYPES:
        command = f"{quoted(*check, '--dtype', dtype)} --seconds $((STEP_SECONDS - 10))"
        steps.append(Step(f"launchers {dtype}", command, 110, least=20, **common))
    sanitizer = machine.find("compute-sanitizer")
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        tool_command = [sanitizer, "--tool", tool, "--error-exitcode", 9, "--print-limit", 20]
        options = ["--few", "--dtype", ",".join(DTYPES), "--case-seconds", 60, *["--no-poison"] * (tool == "initcheck")]
        command = f"{quoted(*tool_command, *check, *options)} --seconds $((STEP_SECONDS - 30))"
        steps.append(Step(tool, command, 120, least=45, lacks="" if sanitizer else "compute-sanitizer", **common))
    return steps


def torch_steps(device: str) -> list[Step]:
    """The losses through torch, on the device or, tiny, on the CPU."""
    build = ("build extension",)
    # On the CPU an installed mmcuda will do where the build has failed.
    needs, after = (build, ()) if device == "cuda" else ((), build)
    common = {"file": "torch.txt", "needs": needs, "after": after}
    quick = ["--quick"] if device == "cpu" else []
    return [
        Step("kernels", script("kernels.py", "--device", device, *quick), 120, least=30, **common),
        Step("integration", script("integration.py", "--device", device), 110, least=40, **common),
    ]


def timing_steps(device: str, before: list[Step]) -> list[Step]:
    """What has the device to itself: one after the other, after everything else."""
    timings_file, rates = WORK / "timings.json", WORK / "ceilings.json"
    ncu = machine.find("ncu")
    after, part = tuple(step.name for step in before), quoted(f"{rates}.part")
    build = ("build extension",) if device == "cuda" else ()
    steps = [
        Step(
            "ceilings", f"{quoted(WORK / 'ceilings')} > {part} && mv {part} {quoted(rates)} && cat {quoted(rates)}",
            30, "machine.txt",
            needs=("build ceilings",), after=after, needs_device=True,
        )
    ]  # fmt: skip
    command = script("timings.py", timings_file, "--device", device, "--ceilings", rates)
    steps.append(
        Step(
            "timings", f"{command} --seconds $((STEP_SECONDS - 10))", 185, "torch.txt", needs=build,
            after=(*after, "ceilings"), reserve=sum(NCU_SECONDS), least=40, copies=(timings_file,),
        )
    )  # fmt: skip
    options = ["--profile-from-start", "off", "--clock-control", "none", "--csv"]
    options += [word for section in NCU_SECTIONS for word in ("--section", section)]
    options += ["--kernel-name", "regex:forward_kernel|backward_kernel"]
    common = {"file": "ncu.txt", "lacks": "" if ncu else "ncu", "needs_device": True}
    needs, seconds = build, NCU_SECONDS[0]
    for n, d, dtype in PROFILED:
        command = f"{WITH_SITE} {quoted(ncu, *options, sys.executable, HERE / 'one_call.py', n, d, dtype)}"
        name, after = f"ncu {n}x{d} {dtype}", (steps[-1].name,)
        steps.append(Step(name, command, seconds, needs=needs, after=after, least=seconds, **common))
        if needs == build:  # the first tells whether counters may be read at all
            needs, seconds = (*build, name), NCU_SECONDS[1]
    return steps


def all_steps(device: dict[str, Any] | None, wheels: Path) -> list[Step]:
    nvcc = machine.find("nvcc")
    kind = "cuda" if device else "cpu"
    steps = [Step("machine", f"{PYTHON} {quoted(HERE / 'machine.py')}", 60, "machine.txt")]
    steps += build_steps(device, nvcc, wheels)
    steps += launcher_steps(nvcc or "nvcc") + torch_steps(kind)
    return steps + timing_steps(kind, steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=470, help="for everything")
    parser.add_argument("--wheels", type=Path, default=ROOT / ".whl")
    args = parser.parse_args()
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"OUT must be a folder, {args.out} is a file")
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in the Makefile: steps share the cores
    device, reason = machine.device()
    facts = machine.sources() | {"device": device, "no_device": reason, "versions": machine.versions()}
    for stale in ("timings.json", "ceilings.json"):
        (WORK / stale).unlink(missing_ok=True)
    if not device:
        print(f"no device: {reason}\nSteps that can run on the CPU do so, with tiny sizes: nothing is measured.")
    runner = Runner(args.out.resolve(), args.seconds, FILES, ROOT, facts)
    code = runner.run(all_steps(device, args.wheels.resolve()))
    if not device:
        names = [name for name, entry in runner.summary["steps"].items() if entry["state"] == WITHOUT_DEVICE]
        print(f"no device, nothing was measured. These steps need one: {', '.join(names)}.")
    print(f"results: {args.out}\ntables of them: python benchmarks/gpu/report.py {args.out}")
    return code


if __name__ == "__main__":
    sys.exit(main())

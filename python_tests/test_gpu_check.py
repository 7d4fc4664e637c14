"""benchmarks/gpu/check.py: the runner of steps, and the programs that it runs, as far as a CPU can."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from simt_build import CSRC, compiled, needs_compiler

from mmcuda._native import extension

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks/gpu"))
import check
import exact
import losses
import machine
import recovery
import report
import steps
import timings
from steps import Runner, Step

ROOT = Path(__file__).parents[1]
GPU = ROOT / "benchmarks/gpu"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the runner reads /proc")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc: no library that plays a GPU")
FACTS = {"device": {"name": "none"}}


def run(folder, *wanted, seconds=30.0, facts=FACTS):
    """Run steps in this process; return the exit code and the summary."""
    runner = Runner(folder / "out", seconds, ("log.txt",), folder, facts)
    code = runner.run([Step(**{"file": "log.txt", **step}) for step in wanted])
    return code, json.loads((folder / "out/summary.json").read_text())


def states(summary):
    return {name: step["state"] for name, step in summary["steps"].items()}


def alive(process):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


# ---- the runner


def test_a_hanging_step_is_killed_with_all_that_it_started(tmp_path):
    """Children in its group, in a group and in a session of their own; the steps beside it and later ones run."""
    hang = "sleep 300 & echo $! > child; setsid sleep 300 & echo $! > session; (sleep 300 & echo $! > grandchild; wait)"
    begin = time.monotonic()
    code, summary = run(
        tmp_path,
        {"name": "hangs", "command": hang, "limit": 1},
        {"name": "beside", "command": "echo good", "limit": 20},
        {"name": "later", "command": "true", "limit": 20, "after": ("hangs",)},
        {"name": "needs it", "command": "true", "limit": 20, "needs": ("hangs",)},
    )
    assert time.monotonic() - begin < 10
    assert code == 1
    assert states(summary) == {
        "hangs": "timed out",
        "beside": "passed",
        "later": "passed",
        "needs it": "left out: needs hangs",
    }
    entry = summary["steps"]["hangs"]
    assert 1 <= entry["seconds"] < 5
    assert entry["limit"] == 1
    for name in ("child", "session", "grandchild"):
        assert not alive(int((tmp_path / name).read_text())), name


def test_what_a_step_leaves_behind_is_killed(tmp_path):
    code, _ = run(tmp_path, {"name": "leaves", "command": "sleep 300 & echo $! > child", "limit": 20})
    assert code == 0
    assert not alive(int((tmp_path / "child").read_text()))


def test_failing_steps(tmp_path):
    code, summary = run(
        tmp_path,
        {"name": "fails", "command": "echo first; echo why; exit 5", "limit": 20},
        {"name": "crashes", "command": "kill -SEGV $$", "limit": 20},
        {"name": "is not there", "command": "/nowhere/program", "limit": 20},
        {"name": "passes", "command": "echo $STEP_SECONDS", "limit": 20},
    )
    assert code == 1
    assert states(summary) == {"fails": "failed", "crashes": "failed", "is not there": "failed", "passes": "passed"}
    codes = {name: step["code"] for name, step in summary["steps"].items()}
    assert codes == {"fails": 5, "crashes": -signal.SIGSEGV, "is not there": 127, "passes": 0}
    assert summary["steps"]["fails"]["last"] == ["first", "why"]
    assert 18 <= int(summary["steps"]["passes"]["last"][0]) <= 20
    assert "===== fails: failed" in (tmp_path / "out/log.txt").read_text()


LOUD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from steps import Runner, Step
command = "head -c 100000000 /dev/zero | tr '\\\\0' x; echo; echo the end"
runner = Runner(Path("out"), 60, (), Path.cwd(), {})
code = runner.run([Step(name, command, 50, "log.txt") for name in ("one", "two")])
status = Path("/proc/self/status").read_text()
print(code, status.split("VmHWM:")[1].split()[0])
"""


def test_a_step_that_prints_100_megabytes(tmp_path):
    """Neither the file nor the runner's memory holds them."""
    done = subprocess.run([sys.executable, "-c", LOUD, GPU], cwd=tmp_path, capture_output=True, text=True, check=True)
    code, kilobytes = map(int, done.stdout.split("\n")[-2].split())
    assert code == 0
    assert kilobytes < 80_000
    text = (tmp_path / "out/log.txt").read_text()
    assert len(text) < 3 * steps.KEPT_BYTES
    assert len(re.findall(r"\[\d\d,\d\d\d,\d\d\d bytes left out\]", text)) == 2
    assert text.count("the end") == 2


def test_a_file_has_a_limit(tmp_path):
    several = steps.FILE_BYTES // steps.KEPT_BYTES + 3
    command = f"head -c {steps.KEPT_BYTES} /dev/zero | tr '\\0' x"
    run(tmp_path, *({"name": f"step {k}", "command": command, "limit": 20} for k in range(several)))
    assert steps.FILE_BYTES - 1000 < (tmp_path / "out/log.txt").stat().st_size <= steps.FILE_BYTES < 16 << 20


def test_copied_files(tmp_path):
    """What a step writes elsewhere is kept, even if it is killed later; large files lose their middle."""
    written, large = tmp_path / "rows.json", tmp_path / "large.txt"
    command = f"echo 1 > {written}; head -c 20000000 /dev/zero | tr '\\0' '\\377' > {large}; sleep 300"
    run(tmp_path, {"name": "writes", "command": command, "limit": 1, "copies": (written, large)})
    assert (tmp_path / "out/rows.json").read_text() == "1\n"
    assert 0 < (tmp_path / "out/large.txt").stat().st_size <= steps.FILE_BYTES


def test_the_summary_is_valid_at_every_moment(tmp_path):
    """And there are never more than eight files."""
    stop, problems, seen, files = threading.Event(), [], set(), set()

    def watch():
        while not stop.is_set():
            try:
                content = json.loads((tmp_path / "out/summary.json").read_text())
                seen.update(step["state"] for step in content["steps"].values())
                files.update(os.listdir(tmp_path / "out"))
            except FileNotFoundError:
                continue  # before the first one
            except ValueError as problem:
                problems.append(problem)

    watcher = threading.Thread(target=watch)
    watcher.start()
    wanted = [{"name": f"step {k}", "command": "sleep 0.1; echo a line", "limit": 20} for k in range(12)]
    code, summary = run(tmp_path, *wanted)
    stop.set()
    watcher.join()
    assert code == 0
    assert not problems
    assert seen == {"waiting", "running", "passed"}
    assert summary["finished"]
    assert files <= {"summary.json", "log.txt", steps.PART}
    assert set(os.listdir(tmp_path / "out")) == {"summary.json", "log.txt"}
    assert len({*check.FILES, steps.SUMMARY, steps.PART}) <= 8


def test_no_time_is_left(tmp_path):
    code, summary = run(
        tmp_path,
        {"name": "first", "command": "sleep 1", "limit": 20},
        {"name": "second", "command": "true", "limit": 20, "after": ("first",)},
        {"name": "reserves", "command": "true", "limit": 20, "reserve": 5},
        seconds=6,
    )
    assert code == steps.NOT_ALL
    assert states(summary) == {"first": "passed", "second": "left out: no time", "reserves": "left out: no time"}


def test_the_budget_ends_a_step(tmp_path):
    code, summary = run(tmp_path, {"name": "long", "command": "sleep 300", "limit": 100, "least": 0.5}, seconds=1)
    assert code == 1
    assert states(summary) == {"long": "timed out"}
    assert 1 <= summary["seconds"] < 5


def test_what_a_device_did_not_run_is_no_success(tmp_path):
    code, summary = run(
        tmp_path,
        {"name": "lacks a tool", "command": "true", "limit": 20, "lacks": "ncu"},
        {"name": "runs", "command": "true", "limit": 20},
        facts={"device": {"name": "NVIDIA Something"}},
    )
    assert code == steps.NOT_ALL
    assert states(summary) == {"lacks a tool": "left out: needs ncu", "runs": "passed"}


def test_without_a_device(tmp_path):
    code, summary = run(
        tmp_path,
        {"name": "needs one", "command": "echo > ran", "limit": 20, "needs_device": True},
        {"name": "finds none", "command": "exit 77", "limit": 20},
        {"name": "lacks a tool", "command": "true", "limit": 20, "lacks": "ncu"},
        {"name": "runs", "command": "true", "limit": 20},
        facts={"device": None, "no_device": "no driver"},
    )
    assert code == 0
    assert states(summary) == {
        "needs one": "no device",
        "finds none": "no device",
        "lacks a tool": "left out: needs ncu",
        "runs": "passed",
    }
    assert summary["steps"]["needs one"]["last"] == ["no driver"]
    assert not (tmp_path / "ran").exists()


def test_a_step_that_does_not_find_the_device_has_failed(tmp_path):
    code, summary = run(tmp_path, {"name": "finds none", "command": "exit 77", "limit": 20})
    assert states(summary) == {"finds none": "no device"}
    assert code == 1


@pytest.mark.parametrize("device", [None, {"name": "a GPU", "capability": [9, 0]}])
def test_commands_of_the_steps(device, monkeypatch):
    """They are valid for the shell, their conditions name other steps, their files are the known ones."""
    monkeypatch.setattr(machine, "find", lambda tool: f"/folder with spaces/{tool}")
    planned = check.all_steps(device, Path("/folder with spaces"))
    names = [step.name for step in planned]
    assert len(set(names)) == len(names)
    for k, step in enumerate(planned):
        subprocess.run(["bash", "-n", "-c", step.command], check=True)
        assert {*step.needs, *step.after} <= set(names[:k])  # so that no two wait for each other
        assert step.file in check.FILES
        assert not step.lacks
        if step.file in ("launchers.txt", "torch.txt", "ncu.txt"):
            assert step.least >= 20, step.name  # with less it would end before it had found anything
        assert {path.name for path in step.copies} <= set(check.FILES)


def test_the_extension_is_built_by_the_nvcc_that_was_found(monkeypatch):
    """CMake looks in fewer places."""
    monkeypatch.setattr(machine, "find", lambda tool: f"/folder with spaces/{tool}")
    commands = {step.name: step.command for step in check.all_steps(None, Path("wheels"))}
    assert "CUDACXX='/folder with spaces/nvcc'" in commands["build extension"]


INTERRUPTED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from steps import Runner, Step
sleep = Step("sleeps", "sleep 300 & echo $! > child; wait", 100, "log.txt")
runner = Runner(Path("out"), 200, (), Path.cwd(), {})
sys.exit(runner.run([sleep, Step("waits", "true", 100, "log.txt", after=("sleeps",))]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_kills_the_steps(tmp_path, number):
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, GPU], cwd=tmp_path, stdout=subprocess.DEVNULL)
    child = tmp_path / "child"
    wait_until(lambda: child.exists() and child.read_text().strip())
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    wait_until(lambda: not alive(int(child.read_text())), 2)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert states(summary) == {"sleeps": "interrupted", "waits": "interrupted"}
    assert not summary["finished"]


# ---- programs that lose their device

GIVES_UP = """
if [ "$*" = "" ]; then echo one; echo "continue with --first 2"; echo "===== printed by a tool"; exit 9; fi
if [ "$*" = "--first 2" ]; then echo two; echo "continue with --first 5"; exit 3; fi
echo "at last $*"
"""


def test_a_step_continues_after_a_lost_device(tmp_path):
    """It has failed all the same."""
    (tmp_path / "gives_up.sh").write_text(GIVES_UP)
    code, summary = run(tmp_path, {"name": "loses", "command": "bash gives_up.sh", "limit": 20})
    assert code == 1
    assert summary["steps"]["loses"]["state"] == "failed"
    assert summary["steps"]["loses"]["code"] == 3
    log = (tmp_path / "out/log.txt").read_text()
    assert all(line in log for line in ("one", "two", "at last --first 5"))


def test_a_step_has_not_failed_where_another_package_lost_the_device(tmp_path):
    command = 'restart() { if [ "$*" = "" ]; then echo continue with --again 1; return 5; fi; echo good; }; restart'
    code, summary = run(tmp_path, {"name": "restarts", "command": command, "limit": 20})
    assert code == 0
    assert states(summary) == {"restarts": "passed"}


def test_a_step_that_never_gets_further_ends(tmp_path):
    code, summary = run(
        tmp_path, {"name": "stays", "command": "echo x >> turns; echo continue with --first 1; exit 3", "limit": 20}
    )
    assert code == 1
    assert summary["steps"]["stays"]["state"] == "failed"
    assert (tmp_path / "turns").read_text() == "x\n" * 2


FAKE = r"""
// A CUDA runtime in plain memory and launchers that do nothing; a kernel of N = 128 fails, one of N = 129 never ends.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int lost = 0;
static long n_of(const char* inputs) { return *(const long*)(inputs + 24); }
int cudaGetDeviceCount(int* n) { *n = DEVICES; return 0; }
int cudaMalloc(void** p, size_t n) { *p = malloc(n); return lost; }
int cudaDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 81 ? 100 << 10 : 0;  // bytes of shared memory of a multiprocessor
  return 0;
}
int cudaFree(void* p) { free(p); return lost; }
int cudaMemcpy(void* to, const void* from, size_t n, int kind) { if (!lost) memcpy(to, from, n); return lost; }
int cudaDeviceSynchronize(void) { return lost; }
const char* cudaGetErrorString(int error) { return "an illegal memory access was encountered"; }
size_t check_inputs_size(void) { return SIZE; }
size_t check_contrastive_workspace() { return 256; }
size_t check_pair_margin_workspace() { return 256; }
const char* check_contrastive_forward(const char* inputs) {
  if (n_of(inputs) == 128) lost = 700;
  while (n_of(inputs) == 129) sleep(1);
  if (*(const int*)(inputs + SHARED) > 100 << 10) return "more shared memory than there is";
  return n_of(inputs) == 40 ? "invalid argument" : 0;
}
const char* check_contrastive_backward() { return 0; }
const char* check_pair_margin_forward() { return 0; }
const char* check_pair_margin_backward() { return 0; }
"""


def fake_library(folder, devices=1):
    """A library that plays the launchers and the CUDA runtime."""
    launchers = GPU / "launchers"
    size, shared = subprocess.run(
        [sys.executable, "-c", 
         "import ctypes; from interface import Inputs; print(ctypes.sizeof(Inputs), Inputs.shared_memory.offset)"],
        cwd=launchers, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    (folder / "fake.c").write_text(FAKE)
    library = folder / "libfake.so"
    options = ["-shared", "-fPIC", "-w", f"-DSIZE={size}", f"-DSHARED={shared}", f"-DDEVICES={devices}"]
    subprocess.run(["gcc", *options, folder / "fake.c", "-o", library], check=True)
    return [sys.executable, launchers / "compare.py", library, "--cudart", library, "--dtype", "float32"]


@needs_gcc
def test_launchers_continue_after_the_case_that_lost_the_device(tmp_path):
    """One that fails and one that never ends; the others are all compared."""
    command = steps.quoted(*fake_library(tmp_path), "--only", "selfx6", "--case-seconds", 1)
    code, summary = run(tmp_path, {"name": "launchers", "command": command, "limit": 25})
    assert code == 1
    assert summary["steps"]["launchers"]["code"] == 1
    log = (tmp_path / "out/log.txt").read_text().splitlines()
    lost = [line for line in log if line.startswith("LOST")]
    assert len(lost) == 2
    assert "128xselfx64: forward: an illegal memory access was encountered (700)" in lost[0]
    assert "129xselfx65: no answer within 1 s" in lost[1]
    failed = [line for line in log if line.startswith("FAIL")]
    assert "invalid argument" in next(line for line in failed if "40xselfx64" in line)
    assert "losses inf" in next(line for line in failed if "600xselfx64" in line)  # nobody wrote them: all NaN
    assert log[-2] == f"{len(failed)} failed"


@needs_gcc
def test_launchers_without_a_device(tmp_path):
    done = subprocess.run(fake_library(tmp_path, devices=0), capture_output=True, text=True)
    assert done.returncode == 77
    assert done.stdout == "no CUDA device\n"


@needs_gcc
def test_launchers_begin_no_case_late(tmp_path):
    done = subprocess.run([*fake_library(tmp_path), "--few", "--seconds", "-1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"^\d+ cases left out: no time\nno case was compared$", done.stdout.strip())


RECORDER = r"""
// In place of simt.cpp's: writes down which kernel was to be launched, and launches none.
#include <cstdio>
#include <cstdlib>
#include "simt.h"
namespace mmcuda::simt {
const char* run(const char* signature, dim3, unsigned, size_t, void (*)(const void*), const void*) {
  std::FILE* file = std::fopen(std::getenv("LAUNCHES"), "a");
  std::fprintf(file, "%s\n", signature);
  std::fclose(file);
  return nullptr;
}
}  // namespace mmcuda::simt
"""


@pytest.mark.slow
@needs_compiler
def test_few_cases_launch_every_kernel(tmp_path):
    """That is what the sanitizers see."""
    (tmp_path / "recorder.cpp").write_text(RECORDER)
    sources = {"simt/simt.cpp": ["-Drun=run_for_real"], "simt/entry.cpp": []}
    sources |= {f"cuda/{source.name}": [] for source in (CSRC / "cuda").glob("launch*.cu")}
    for name, options in sources.items():
        compiled("-O0", "-x", "c++", *options, "-c", CSRC / name, "-o", tmp_path / f"{Path(name).stem}.o")
    library = tmp_path / "library.so"
    compiled("-shared", f"-I{CSRC / 'simt'}", tmp_path / "recorder.cpp", *tmp_path.glob("*.o"), "-o", library)
    kernels = {}
    for option in ("--few", "--seed=0"):  # the second is the default
        launches = tmp_path / option
        command = [sys.executable, GPU / "launchers/compare.py", library, option]
        subprocess.run(command, env=os.environ | {"LAUNCHES": str(launches)}, stdout=subprocess.DEVNULL)
        kernels[option] = set(launches.read_text().splitlines())
    assert kernels["--few"] == kernels["--seed=0"]
    assert len(kernels["--few"]) > 50


# ---- a dry run of everything that a CPU can run


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """The folder of results of all steps, without a device and without a compiler for one; and the exit code."""
    if extension.native is None:
        pytest.skip(extension.missing_reason)
    folder = tmp_path_factory.mktemp("dry") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "find", lambda tool: None)
        patch.setattr(check, "WORK", folder.parent / "work")
        patch.setenv("OMP_WAIT_POLICY", "passive")
        check.WORK.mkdir()
        facts = machine.sources() | {"device": None, "no_device": "no driver", "versions": machine.versions()}
        runner = Runner(folder, 200, check.FILES, ROOT, facts)
        code = runner.run(check.all_steps(None, folder))
    return folder, code


def test_dry_run(dry_run):
    folder, code = dry_run
    summary = json.loads((folder / "summary.json").read_text())
    found = states(summary)
    assert {name for name, state in found.items() if state == "passed"} == {
        "machine",
        "wheels",
        "kernels",
        "integration",
        "timings",
    }
    assert {state for name, state in found.items() if name.startswith("build")} == {"left out: needs nvcc"}
    rest = {state for name, state in found.items() if name.startswith(("launchers", "ncu", "mem", "ceilings", "sync"))}
    assert rest == {"no device"}
    assert code == 0
    assert set(os.listdir(folder)) <= {*check.FILES, "summary.json"}
    log = (folder / "torch.txt").read_text()
    assert "0 of 6 groups failed" in log
    assert re.search(r"^0 of \d+ checks failed", log, re.MULTILINE)


def test_dry_timings(dry_run):
    written = json.loads((dry_run[0] / "timings.json").read_text())
    ours = [row for row in written["rows"] if row["name"] == "mmcuda"]
    assert {(row["task"], row["dtype"]) for row in ours} == {
        ("supcon", "bf16"),
        ("supcon", "fp32"),
        ("clip", "fp32"),
        ("clip", "bf16"),
    }
    for row in ours:
        assert row["agrees"]
        assert row["call_ms"][0] <= row["call_ms"][1] <= row["call_ms"][2]
    assert all("begun" not in row for row in written["rows"])
    absent = {row["name"] for row in written["rows"] if "ModuleNotFoundError" in row.get("problem", "")}
    assert absent <= {"memeff", "inf-cl", "cut-cross-entropy, unfiltered", "cut-cross-entropy", "siglip-kernel"}


def fake_task(late):
    """Losses of a task that is quick: ours, one that raises, and one that takes `late` seconds."""

    def slow(x, y):
        time.sleep(late)
        return (x * y).sum()

    def broken(x, y):
        raise ValueError("not here")

    made = {"mmcuda": lambda x, y: (x * y).sum(), "slow": slow, "broken": broken}
    named = {name: losses.TimedLoss(name, lambda _, loss=loss: loss) for name, loss in made.items()}

    def reference(x, y, temperature):
        return (x * y).sum().item(), [y.detach().double(), x.detach().double()]

    return losses.Task("fake", losses.clip_inputs, reference, 8, named)


def test_timings_continue_after_a_row_that_did_not_come_back(tmp_path, monkeypatch):
    """The row that had begun is reported as lost, rows before it are kept, later ones are timed."""
    out, lost = tmp_path / "timings.json", []

    def lose(reason, arguments, code):
        lost.append((arguments, code, out.read_text()))

    monkeypatch.setattr(recovery, "lose", lose)
    monkeypatch.setattr(timings, "ROW_SECONDS", 1)
    shape = timings.Shape("fake", 32, 8, "fp32", ("broken", "slow", "mmcuda"))

    def rows(again):
        timed_rows = timings.Timings(out, 30, "cpu", {}, again)
        timed_rows.tasks = {"fake": fake_task(0.25)}
        timed_rows.run(iter([shape]))
        return {row["name"]: row for row in json.loads(out.read_text())["rows"]}

    complete = rows(0)
    assert complete["slow"]["agrees"]
    assert complete["slow"]["call_ms"][0] >= 250
    assert complete["broken"]["problem"] == "ValueError: not here"
    arguments, code, content = lost[0]  # and what the file was at that moment
    assert (arguments, code) == ("--again 1", recovery.RESTART)
    out.write_text(content)
    after = rows(1)
    assert after["broken"]["problem"] == "ValueError: not here"
    assert after["slow"]["problem"] == "lost the device, or did not come back"
    assert after["mmcuda"]["agrees"]


@pytest.mark.parametrize("temperature", [0.01, losses.TEMPERATURE])
def test_losses_that_are_timed_are_numbers_that_float32_has(temperature):
    x, y = losses.clip_inputs(512, 512, torch.bfloat16, "cpu", temperature)
    loss, _ = exact.clip(x, y, temperature)
    assert 1e-2 < loss < 20


def test_a_failed_capture_costs_the_row_its_graph_only(tmp_path, monkeypatch):
    """A loss that waits for the device is never captured; where a capture fails a new process continues."""
    modes, lost = [], []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(timings, "lose", lambda reason, *how: lost.append(how) or sys.exit())

    def step():
        if modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    timed_rows = timings.Timings(tmp_path / "timings.json", 30, "cpu", {}, 0)
    timed_rows.rows = [{}]
    row = {"name": "peer"}
    timed_rows.measure_graph(row, step)
    assert row["no_graph"] == "RuntimeError: called a synchronizing CUDA operation"
    assert (modes, lost) == (["error", "default"], [])

    def refuse(step):
        raise RuntimeError("capture")

    monkeypatch.setattr(timings, "graph", refuse)
    with pytest.raises(SystemExit):
        timed_rows.measure_graph(row, lambda: None)
    assert lost == [("--again 1", recovery.RESTART)]
    assert json.loads((tmp_path / "timings.json").read_text())["rows"] == [row]


def test_nothing_is_timed_after_the_profiler(tmp_path, monkeypatch):
    """It stays attached. A row that it loses is not profiled again."""
    out, timed = tmp_path / "timings.json", []

    def launches(step):
        timed.append([row["name"] for row in json.loads(out.read_text())["rows"] if "call_ms" in row])
        return [("kernel", 1.0)]

    monkeypatch.setattr(timings, "launches", launches)
    timed_rows = timings.Timings(out, 30, "cpu", {}, 0)
    timed_rows.tasks = {"fake": fake_task(0)}
    shapes = [timings.Shape("fake", n, 8, "fp32", ("mmcuda", "slow")) for n in (16, 32)]
    timed_rows.run(iter(shapes))
    assert not timed
    timed_rows.rows[2]["no_launches"] = timings.LOST
    timed_rows.profile_rows()
    assert timed == [["mmcuda", "slow"] * 2]
    assert [row.get("launches") for row in json.loads(out.read_text())["rows"]] == [[["kernel", 1.0]], None, None, None]


def test_timings_without_ceilings(tmp_path, monkeypatch):
    """What ceilings.cu left is not always JSON."""
    empty = tmp_path / "ceilings.json"
    empty.write_text("")
    monkeypatch.setattr(timings, "dry_plan", lambda: iter(()))
    out = tmp_path / "timings.json"
    monkeypatch.setattr(sys, "argv", ["timings.py", str(out), "--device", "cpu", "--ceilings", str(empty)])
    assert timings.main() == 1  # no row of ours
    assert json.loads(out.read_text())["ceilings"] == {}


def test_timings_stop_in_time(tmp_path):
    timed_rows = timings.Timings(tmp_path / "timings.json", timings.LEAST_SECONDS - 1, "cpu", {}, 0)
    timed_rows.run(timings.dry_plan())
    assert json.loads((tmp_path / "timings.json").read_text())["rows"] == []


def test_what_compiles_needs_more_time(tmp_path, monkeypatch):
    """And nearly all of a short time is for timing."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    rows = timings.Timings(tmp_path / "timings.json", timings.LEAST_TO_COMPILE, "cuda", {}, 0)
    assert rows.until - time.monotonic() > 0.8 * timings.LEAST_TO_COMPILE
    rows.time_rows(iter([timings.Shape("supcon", 64, 16, "bf16", ("dense, compiled",))]))
    assert rows.rows == []


def test_what_is_planned():
    """Names and dtypes are known; nothing is planned twice."""
    tasks = {"supcon": losses.supcon("cpu"), "clip": losses.clip("cpu")}
    planned = [(*shape[:4], shape.temperature, name) for shape in timings.plan() for name in shape.names]
    for task, _, _, dtype, _, name in planned:
        assert name in tasks[task].losses
        assert dtype in timings.CEILINGS
        assert dtype in timings.AGREES
    assert len(set(planned)) == len(planned)
    assert {(n, dtype) for task, n, d, dtype, *_ in planned if (task, d) == ("supcon", 128)} >= {
        (n, dtype)
        for n in (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072)
        for dtype in ("bf16", "fp32", "tf32")
    }


def test_report_on_a_dry_run(dry_run, capsys, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("unchanged")
    assert report.main([str(dry_run[0])], readme) == 0
    text = capsys.readouterr().out
    assert text.startswith("no device (no driver); ")
    assert "| launchers bfloat16 | no device |  |" in text
    assert "mma.sync" not in text
    assert report.main([str(dry_run[0]), "--write"], readme) == 1
    assert readme.read_text() == "unchanged"


def test_usage(tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run([sys.executable, GPU / "check.py", tmp_path / "file"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "OUT must be a folder" in done.stderr


def test_tree_id_is_that_of_git(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.txt").write_text("sorted before the folder")
    (tmp_path / "folder/program").write_text("#!/bin/sh\n")
    (tmp_path / "folder/program").chmod(0o755)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    tree = subprocess.run([*git, "write-tree"], capture_output=True, text=True, check=True).stdout.strip()
    shutil.rmtree(tmp_path / ".git")
    assert machine.tree_id(tmp_path) == tree

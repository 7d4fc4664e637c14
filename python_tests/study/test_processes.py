"""Processes of a study: one that dies loses its cells, all end with the study, and none outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmcuda.cli import main
from mmcuda.study import processes
from mmcuda.study.cells import Cell, Task
from mmcuda.study.processes import do_in_processes
from mmcuda.train.config import PretrainJob

CELLS = (Cell("simclr", 0.5, 0), Cell("simclr", 1.0, 0))
TASKS = {"first": Task(PretrainJob(), CELLS), "second": Task(PretrainJob(seed=1), (Cell("simclr", 0.5, 1),))}


@pytest.fixture
def program(monkeypatch, tmp_path):
    """A function that lets processes run a Python program in place of a task."""

    def replace(text):
        script = tmp_path / "python"
        script.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\nroot, name = sys.argv[-2:]\n{text}\n")
        script.chmod(0o755)
        monkeypatch.setattr(processes.sys, "executable", str(script))

    return replace


def test_a_death_is_told_with_its_signal_and_the_others_go_on(program, tmp_path):
    program(
        "open(root + '/' + name, 'w').write(os.environ['OMP_NUM_THREADS'])\nif name == 'first': os.kill(os.getpid(), 9)"
    )
    reports = list(do_in_processes(tmp_path, TASKS, processes=1, threads=7))
    killed, ended = "its process ended by SIGKILL, perhaps for want of memory", "its process ended with exit code 0"
    assert [(report.cell, report.error) for report in reports] == [
        *((cell, killed) for cell in CELLS),
        (TASKS["second"].cells[0], ended),
    ]
    assert {name: (tmp_path / name).read_text() for name in TASKS} == dict.fromkeys(TASKS, "7")


def test_what_failed_in_a_process_is_told_in_its_own_words(program, tmp_path):
    failed = CELLS[0].file(tmp_path / "failed", ".txt")
    failed.parent.mkdir(parents=True)
    failed.write_text("Traceback (most recent call last):\n  ...\nValueError: no features\n")
    program("time.sleep(60)")
    reports = do_in_processes(tmp_path, TASKS, processes=1, threads=1)
    assert next(reports).error == "ValueError: no features"
    reports.close()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_process_outlives_a_killed_study(tmp_path):
    """A continued study must not meet processes of the killed one, which write the same files."""
    child = (
        "from mmcuda.study.processes import _end_with_parent, os; print(os.getpid(), flush=True); _end_with_parent()"
    )
    parent = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as first:
        pid = int(first.stdout.readline())
        first.send_signal(signal.SIGKILL)
    wait_for(lambda: gone(pid))


def test_a_task_that_is_not_left_is_refused(whole):
    command = [sys.executable, "-m", "mmcuda", "_task", str(whole[0]), "simclr-seed0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as task:
        assert "has no task simclr-seed0 left; there are none" in task.stderr.read()
    assert task.returncode == 2


def test_torchrun_and_processes_exclude_each_other(monkeypatch, capsys, study_yaml, tmp_path):
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", 2)
    for options, message in {
        ("--processes", "2"): "processes must be 1 under torchrun, whose ranks pretrain together",
        (): "the arm supervised trains a classifier, which the ranks of torchrun do not share",
    }.items():
        assert main(["study", str(study_yaml), "--out", str(tmp_path / "x"), *options]) == 2
        assert capsys.readouterr().err.startswith(f"mmcuda: error: {message}")
    assert not (tmp_path / "x").exists()

"""Tasks done by several processes at a time: each runs the hidden command ``mmcuda _task`` on a run's folder.

A process that dies loses the cells it had not written, and none outlives the study that started it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmcuda.errors import UserError
from mmcuda.study.cells import CELLS, Cell, CellScores, Task, missing_cells, name_tasks
from mmcuda.study.config import StudyConfig
from mmcuda.study.work import FAILED, CellReport, Worker
from mmcuda.train.cohorts import load_split_cohort
from mmcuda.train.config_file import load_config
from mmcuda.train.folder import RunFolder
from mmcuda.train.loop import make_accelerator

COMMAND = "_task"
SECONDS_BETWEEN_LOOKS = 0.1


def do_in_processes(root: Path, tasks: Mapping[str, Task], processes: int, threads: int) -> Iterator[CellReport]:
    """Do tasks in several processes; yield a report a cell as they come.

    Args:
        root: folder of the run, with its config.yaml.
        tasks: by name, started in this order.
        processes: at most so many at a time.
        threads: of each process.
    """
    waiting = deque(tasks.items())
    running: list[_Process] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(_Process(root, *waiting.popleft(), threads))
            for process in list(running):
                yield from process.reports()
                if process.is_over:
                    running.remove(process)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for process in running:
            process.stop()


class _Process:
    """A process that does one task, and what became of its cells so far."""

    def __init__(self, root: Path, name: str, task: Task, threads: int) -> None:
        self._root, self._left, self.is_over = root, list(task.cells), False
        self._last = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mmcuda", COMMAND, str(root), name],
            stdin=subprocess.PIPE,  # never written to: it closes when this process ends, however it ends
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )

    def reports(self) -> Iterator[CellReport]:
        """Yield what has been written since the last look, and at the end what is missing."""
        code = self._process.poll()  # first: what an ended process wrote is all there
        for cell in list(self._left):
            report = self._report(cell)
            if report is None and code is not None:
                report = CellReport(cell, self._seconds(), error=f"its process ended {_how(code)}")
            if report:
                self._left.remove(cell)
                yield report
        self.is_over = code is not None

    def _report(self, cell: Cell) -> CellReport | None:
        scores, failure = cell.file(self._root / CELLS), cell.file(self._root / FAILED, ".txt")
        if scores.exists():
            return CellReport(cell, self._seconds(), CellScores.read(scores).headline)
        if failure.exists():
            return CellReport(cell, self._seconds(), error=failure.read_text().rstrip().rpartition("\n")[2])
        return None

    def _seconds(self) -> float:
        """Return the time since it was last asked for."""
        passed, self._last = time.perf_counter() - self._last, time.perf_counter()
        return passed

    def stop(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    return f"by {signal.Signals(-code).name}" + (", perhaps for want of memory" * (-code == signal.SIGKILL))


def run_task(root: Path, name: str) -> None:
    """Do one task of the study in ``root``, in a process of its own that ends with the one that started it.

    Raises:
        UserError: if no such task is left to do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    saved = load_config(StudyConfig, RunFolder(root).config)
    cohort = load_split_cohort(saved.data)
    config = saved.with_labels(list(cohort.clinical))
    tasks = name_tasks(config, missing_cells(config, root))
    if name not in tasks:
        raise UserError(f"{root} has no task {name} left; there are {', '.join(tasks) or 'none'}")
    worker = Worker(config, RunFolder(root), make_accelerator(config.pretrain.precision), cohort)
    for _ in worker.do(tasks[name]):
        pass


def _end_with_parent() -> None:
    """End at once after the process at the other end of stdin: a study that is continued writes the same files."""
    while os.read(sys.stdin.fileno(), 1):  # not by sys.stdin, whose lock the end of this process needs
        pass
    os._exit(1)

"""Tasks done by several processes at a time. One that dies loses its task only, and none outlives the first process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

spawn = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork


class ProcessDied(Exception):
    """A process ended before its task did."""


def in_processes(
    begin: Callable[[], Callable[[Task], Iterable[Result]]], tasks: Iterable[Task], processes: int, threads: int
) -> Iterator[tuple[Task, Result | ProcessDied]]:
    """Do tasks in several processes; yield each task's results as they come, with the task.

    Args:
        begin: called once in every process, it returns what does a task there; importable, as are the tasks' classes.
        tasks: started in this order.
        processes: at most so many at a time.
        threads: of each process.
    """
    waiting = deque(tasks)
    at_work = [_Process(begin, waiting.popleft(), threads) for _ in range(min(processes, len(waiting)))]
    try:
        while at_work:
            ready = wait([process.connection for process in at_work])
            for process in [process for process in at_work if process.connection in ready]:
                task = process.task
                try:
                    result = process.receive()
                except ProcessDied as death:
                    at_work.remove(process)
                    if waiting:
                        at_work.append(_Process(begin, waiting.popleft(), threads))
                    yield task, death
                    continue
                if result is not None:
                    yield task, result
                elif waiting:
                    process.give(waiting.popleft())
                else:
                    at_work.remove(process)
                    process.stop()
    finally:
        for process in at_work:
            process.stop()


class _Process(Generic[Task, Result]):
    """One process, as seen from outside, and the task that it is at."""

    def __init__(self, begin: Callable[[], Callable[[Task], Iterable[Result]]], task: Task, threads: int) -> None:
        self.connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(begin, theirs), daemon=True)
        with _environment("OMP_NUM_THREADS", str(threads)):  # it must be there when the process imports PyTorch
            self._process.start()
        theirs.close()
        self.give(task)

    def give(self, task: Task) -> None:
        """Let the process do ``task``."""
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # it has died, which receive tells
            self.connection.send(task)

    def receive(self) -> Result | None:
        """Return the next result of the task, None at its end.

        Raises:
            ProcessDied: if the process has ended.
        """
        try:
            result: Result | None = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"with exit code {code}"
            if code < 0:
                how = f"by {signal.Signals(-code).name}" + (", perhaps for want of memory" * (-code == signal.SIGKILL))
            raise ProcessDied(f"its process ended {how}") from None
        return result

    def stop(self) -> None:
        """End the process, whatever it is at."""
        self._process.terminate()
        self._process.join()


def _serve(begin: Callable[[], Callable[[Task], Iterable[Result]]], connection: Connection) -> None:
    """Do the tasks that come in, silently, for as long as there is somebody to tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.suppress(EOFError):
        work = begin()
        while True:
            for result in work(connection.recv()):
                connection.send(result)
            connection.send(None)


def _end_with_parent() -> None:
    """End at once after the process that started this one: a study that is continued writes the same files."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before

"""Steps of a check: processes with time limits, side by side where nothing forbids it, and a summary of their ends.

Each step is a shell command in a session of its own. It begins when the steps that it names in `needs` and `after` have
ended, and is killed, with all that it started, when its time is over. The folder of results is written by the runner
alone: the steps' output, cut in the middle where it is long, copies of files that steps write elsewhere, and
summary.json, which is replaced after every step.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recovery import CONTINUE, NO_DEVICE, RESTART

MOST_RESTARTS = 20
KEPT_BYTES = 1 << 20  # of a step's output
FILE_BYTES = 15 << 20  # of one file of the results
LAST_LINES = 3  # in the summary
SUMMARY = "summary.json"
PART = "part"  # a file of the results while it is written
AGAIN = re.compile(r"^continue with (--[\w.-]+(?: [\w.-]+)*)$", re.MULTILINE)  # a tool may print more after it

NOT_ALL = 4  # exit code
PASSED, FAILED, TIMED_OUT = "passed", "failed", "timed out"
WITHOUT_DEVICE, NO_TIME, INTERRUPTED = "no device", "left out: no time", "interrupted"


@dataclass(frozen=True)
class Step:
    """A command, and under which conditions it is run."""

    name: str
    command: str  # of bash; $STEP_SECONDS is the time that it has
    limit: float  # seconds
    file: str  # of the results, to which its output is appended
    needs: tuple[str, ...] = ()  # steps that must have passed before
    after: tuple[str, ...] = ()  # steps that must have ended before, with whatever result
    least: float = 5  # seconds, with less of which it is not begun
    reserve: float = 0  # seconds of the budget that are left to later steps
    lacks: str = ""  # what is missing on this machine: the step is left out
    needs_device: bool = False
    copies: tuple[Path, ...] = ()  # files that it writes, kept in the results under the same name


class Output:
    """The beginning and the end of a stream of bytes."""

    def __init__(self, kept: int = KEPT_BYTES) -> None:
        self.half = kept // 2
        self.head, self.tail = bytearray(), bytearray()
        self.dropped = 0

    def add(self, data: bytes) -> None:
        room = self.half - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        if len(self.tail) > 2 * self.half:
            self.dropped += len(self.tail) - self.half
            del self.tail[: -self.half]

    def content(self) -> bytes:
        tail = bytes(self.tail[-self.half :])
        dropped = self.dropped + len(self.tail) - len(tail)
        return bytes(self.head) + (f"\n[{dropped:,} bytes left out]\n".encode() if dropped else b"") + tail

    def text(self) -> str:
        return self.content().decode(errors="replace")


def cut(content: bytes, most: int = FILE_BYTES) -> bytes:
    """Content of at most `most` bytes, without its middle where it is longer."""
    if len(content) <= most:
        return content
    output = Output(most - 100)  # the mark between its halves is shorter
    output.add(content)
    return output.content()


def last_lines(text: str) -> list[str]:
    return [line.strip()[:300] for line in text[-4000:].splitlines() if line.strip()][-LAST_LINES:]


def family(leader: int) -> set[int]:
    """The living processes of the session that `leader` leads or led, and what descends from them."""
    parents, members = {}, set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()  # state, parent, group, session, ..
        except OSError:  # it has just ended
            continue
        if fields[0] == "Z":
            continue
        process = int(entry.name)
        parents[process] = int(fields[1])
        if int(fields[3]) == leader:
            members.add(process)
    grown = True
    while grown:
        more = {process for process, parent in parents.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return members


def kill(leader: int) -> None:
    """Kill a step's session and what descends from it, until nothing of it is left that could start more."""
    for _ in range(5):
        members = family(leader)
        if not members:
            return
        for process in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


@dataclass
class Running:
    """A step's state while the runner works."""

    step: Step
    ended: threading.Event = field(default_factory=threading.Event)
    state: str = "waiting"


class Runner:
    """Runs steps, keeps their results in a folder."""

    def __init__(self, out: Path, seconds: float, files: Sequence[str], root: Path, facts: dict[str, Any]) -> None:
        self.out, self.seconds, self.root = out, seconds, root
        self.begin = time.monotonic()
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.steps: dict[str, Running] = {}
        self.summary: dict[str, Any] = {**facts, "budget_seconds": seconds, "finished": False, "steps": {}}
        out.mkdir(parents=True, exist_ok=True)
        for name in (*files, SUMMARY, PART):
            (out / name).unlink(missing_ok=True)
        self.write_summary()

    # ---- the folder of results

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begin)

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file in one moment: whoever reads sees the old one or the new one. Called under the lock."""
        part = self.out / PART
        part.write_bytes(cut(content))
        os.replace(part, self.out / name)

    def append(self, name: str, text: str) -> None:
        path = self.out / name
        before = path.read_bytes() if path.exists() else b""
        self.replace(name, before + text.encode())

    def write_summary(self) -> None:
        self.summary["seconds"] = round(time.monotonic() - self.begin, 1)
        self.replace(SUMMARY, (json.dumps(self.summary, indent=1) + "\n").encode())

    def copy(self, step: Step, seen: dict[Path, int]) -> None:
        """Keep what a step has written, if it is new."""
        for path in step.copies:
            written = path.stat().st_mtime_ns if path.exists() else 0
            if written != seen.get(path, 0):
                seen[path] = written
                with self.lock:
                    self.replace(path.name, path.read_bytes())

    def note(
        self,
        step: Step,
        state: str,
        *,
        code: int | None = None,
        began: float | None = None,
        limit: float = 0,
        last: Sequence[str] = (),
        text: str | None = None,
    ) -> None:
        """Write what has become of a step."""
        now = time.monotonic()
        entry: dict[str, Any] = {"state": state, "code": code}
        if began is not None:
            entry |= {"seconds": round(now - began, 1), "began": round(began - self.begin, 1), "limit": round(limit, 1)}
        entry["last"] = list(last)
        with self.lock:
            self.steps[step.name].state = state
            self.summary["steps"][step.name] = entry
            if text is not None:
                self.append(step.file, f"===== {step.name}: {state}, {entry['seconds']} s\n{text.rstrip()}\n\n")
            self.write_summary()
            if state != "running":
                with_code = f"{state} ({code})" if code else state
                print(f"{now - self.begin:6.1f} s  {step.name}: {with_code}  {' '.join(last[-1:])}"[:200], flush=True)

    # ---- steps

    def run(self, steps: Sequence[Step]) -> int:
        """Run all steps; return the exit code.

        0: those that ran have passed. 1: one has not. 4: of those that a device would have run some were left out.
        128 + its number after a signal.
        """
        self.steps = {step.name: Running(step) for step in steps}
        with self.lock:
            self.summary["steps"] = {step.name: {"state": "waiting", "code": None, "last": []} for step in steps}
            self.write_summary()
        caught: list[int] = []

        def interrupt(number: int, frame: object) -> None:
            caught.append(number)
            self.stop.set()

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        threads = [threading.Thread(target=self.take, args=(running,)) for running in self.steps.values()]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # a join without a limit would keep signals waiting
                    thread.join(0.2)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        with self.lock:
            self.summary["finished"] = not caught
            self.write_summary()
        if caught:
            return 128 + caught[0]
        states = {running.state for running in self.steps.values()}
        if not self.summary.get("device"):
            return int(bool(states & {FAILED, TIMED_OUT}))
        # Where the driver has a device, a step that finds none has failed.
        if states & {FAILED, TIMED_OUT, WITHOUT_DEVICE}:
            return 1
        return NOT_ALL if any(state.startswith("left out") for state in states) else 0

    def take(self, running: Running) -> None:
        """Wait for a step's turn, and run it."""
        step = running.step
        try:
            if step.needs_device and not self.summary.get("device"):
                return self.note(step, WITHOUT_DEVICE, last=[str(self.summary.get("no_device", ""))])
            for name in (*step.needs, *step.after):
                self.steps[name].ended.wait()
            missing = [name for name in step.needs if self.steps[name].state != PASSED]
            limit = min(step.limit, self.left() - step.reserve)
            if self.stop.is_set():
                self.note(step, INTERRUPTED)
            elif step.lacks or missing:
                self.note(step, f"left out: needs {step.lacks or ', '.join(missing)}")
            elif limit < min(step.least, step.limit):
                self.note(step, NO_TIME)
            else:
                self.execute(step, limit)
        except Exception as problem:  # such as a full disk: later steps must still have their turn
            self.note(step, FAILED, last=[f"{type(problem).__name__}: {problem}"])
        finally:
            running.ended.set()

    def execute(self, step: Step, limit: float) -> None:
        began = time.monotonic()
        self.note(step, "running", began=began, limit=limit)
        output = Output()
        seen: dict[Path, int] = {}
        arguments, lost, state = "", False, FAILED
        for _ in range(MOST_RESTARTS):
            until = began + limit
            state, code, text = self.process(step, f"{step.command} {arguments}", until, output, seen)
            again = AGAIN.findall(text)
            if state != FAILED or not again or again[-1] == arguments:
                break
            arguments, lost = again[-1], lost or code != RESTART
        if lost and state == PASSED:  # the last process had nothing to complain of
            state, code = FAILED, CONTINUE
        text = output.text()
        self.note(step, state, code=code, began=began, limit=limit, last=last_lines(text), text=text)

    def process(
        self, step: Step, command: str, until: float, output: Output, seen: dict[Path, int]
    ) -> tuple[str, int | None, str]:
        """Run one process until it ends or is killed; return its state, its exit code and the end of its output."""
        environment = os.environ | {"STEP_SECONDS": f"{max(until - time.monotonic(), 0):.0f}"}
        own = Output(1 << 15)
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.root,
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        stream = process.stdout.fileno()

        def read() -> None:
            while data := os.read(stream, 1 << 16):
                output.add(data)
                own.add(data)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        state = ""
        try:
            while process.poll() is None and not state:
                if self.stop.wait(0.1):
                    state = INTERRUPTED
                elif time.monotonic() > until:
                    state = TIMED_OUT
                self.copy(step, seen)
        finally:
            kill(process.pid)  # what is left of it; nothing may go on using the device
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # held in the driver
            output.add(b"\nthe process did not end when it was killed\n")
        reader.join(2)
        if not reader.is_alive():  # else a process that has left the family holds the pipe
            process.stdout.close()
        self.copy(step, seen)
        code = process.returncode
        if not state:
            state = {0: PASSED, NO_DEVICE: WITHOUT_DEVICE}.get(code, FAILED)
        return state, code, own.text()


def quoted(*words: object) -> str:
    """Words as a command of the shell."""
    return shlex.join(map(str, words))

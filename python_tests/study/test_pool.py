import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pool_work import begin, begin_slowly

from mmcuda.study.pool import ProcessDied, in_processes


def test_every_result_comes_and_a_death_loses_one_task():
    before = os.environ.get("OMP_NUM_THREADS")
    results = list(in_processes(begin, [3, -9, 0, 2], processes=1, threads=7))
    counted = [(task, result) for task, result in results if not isinstance(result, ProcessDied)]
    assert counted == [(3, (0, "7")), (3, (1, "7")), (3, (2, "7")), (-9, (0, "7")), (2, (0, "7")), (2, (1, "7"))]
    deaths = [(task, str(result)) for task, result in results if isinstance(result, ProcessDied)]
    assert deaths == [(-9, "its process ended by SIGKILL, perhaps for want of memory")]
    assert os.environ.get("OMP_NUM_THREADS") == before


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


def test_leaving_early_stops_the_processes():
    results = in_processes(begin_slowly, ["a", "b"], processes=1, threads=1)
    _, pid = next(results)
    results.close()
    assert gone(pid)


def test_no_process_outlives_a_killed_first():
    """A continued study must not meet processes of the killed one, which write the same files."""
    program = (
        "from pool_work import begin_slowly; from mmcuda.study.pool import in_processes\n"
        "if __name__ == '__main__':\n"
        "    for _, pid in in_processes(begin_slowly, ['a'], 1, 1): print(pid, flush=True)"
    )
    path = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=path) as first:
        pid = int(first.stdout.readline())
        first.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)

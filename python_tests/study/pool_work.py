"""Work for the test of the pool: what other processes import must lie in a module."""

import os
import time


def begin():
    return work


def work(task):
    """Count to the task; some tasks are deadly."""
    for number in range(abs(task)):
        if task < 0 and number == 1:
            os.kill(os.getpid(), -task)
        yield number, os.environ["OMP_NUM_THREADS"]


def begin_slowly():
    return sleep


def sleep(path):
    yield os.getpid()
    time.sleep(60)

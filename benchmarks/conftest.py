"""What the suite's JSON keeps: statistics and conditions, not every round and nothing of who ran it."""

import pytest
import torch
from measure import THREADS, conditions


@pytest.fixture(autouse=True, scope="session")
def threads():
    torch.set_num_threads(THREADS)


def pytest_benchmark_generate_machine_info(config):
    return conditions()


def pytest_benchmark_generate_commit_info(config):
    return {}


def pytest_benchmark_update_json(config, benchmarks, output_json):
    for row in output_json["benchmarks"]:
        row["stats"].pop("data", None)

"""Settings of every test: reproducible examples, no more threads than the tests ask for."""

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("default", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)

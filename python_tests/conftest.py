"""Settings of every test: reproducible examples, no more threads than the tests ask for."""

import dataclasses
import functools
import importlib.util

import hypothesis
import numpy as np
import pytest
import torch

from mmcuda._native import encode, extension, ops

hypothesis.settings.register_profile("default", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@functools.cache
def registered_simt():
    ops.register("mmcuda_simt")


@pytest.fixture
def simt(monkeypatch):
    """The CUDA kernels, run on the CPU, in use as the operators."""
    pytest.importorskip("mmcuda._simt", reason="mmcuda._simt was not built: MMCUDA_SIMT=ON builds it")
    registered_simt()
    monkeypatch.setattr(ops, "operators", torch.ops.mmcuda_simt)
    # float16 reaches the kernels as it is
    monkeypatch.setattr(encode, "for_kernels", lambda inputs: (inputs.anchors, inputs.keys))
    return torch.ops.mmcuda_simt


@pytest.fixture
def use_instruction_set():
    """A function that puts an instruction set of the CPU in use."""
    before = extension.native.instruction_set()
    yield extension.native.set_instruction_set
    extension.native.set_instruction_set(before)


INSTRUCTION_SETS = extension.native.build_info()["cpu"] if extension.native else []
SIMT = importlib.util.find_spec("mmcuda._simt") is not None


@pytest.fixture(params=[*INSTRUCTION_SETS, *["simt"] * SIMT])
def implementation(request):
    """Each implementation of the operators in use: the instruction sets, and the CUDA kernels run on the CPU."""
    if request.param == "simt":
        request.getfixturevalue("simt")
    else:
        request.getfixturevalue("use_instruction_set")(request.param)
    return request.param


@pytest.fixture(scope="session")
def readings():
    """The LIDC readings of the first 120 patients, small."""
    # only where used: the loss is tested without these packages
    from mmcuda.data import DataConfig, load_cohort, split_by_patient

    whole = load_cohort(DataConfig(image_size=32))
    rows = np.flatnonzero(np.isin(whole.patients, np.unique(whole.patients)[:120]))
    cohort = whole.take(rows)
    return dataclasses.replace(cohort, split=split_by_patient(cohort.patients, 0.3, 0))

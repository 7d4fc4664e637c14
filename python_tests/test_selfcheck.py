"""`mmcuda selfcheck` and the sweep over GPU shapes, for real on the CPU: what they print, exit codes, the alarm."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmcuda._native import extension, ops
from mmcuda.cli import main
from mmcuda.info import describe
from mmcuda.selfcheck import correctness
from mmcuda.selfcheck.cases import FULL, QUICK, VARIANTS, groups
from mmcuda.selfcheck.correctness import MODES, check_all

pytestmark = pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or "")
ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"OMP_WAIT_POLICY": "passive"}
FLOAT32 = {"float32": MODES["float32"]}

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")


def run(*command):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT
    )


def test_on_the_cpu():
    result = run("-m", "mmcuda", "selfcheck", "--device", "cpu", "--quick")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    checked = [line for line in lines if line.endswith("   ok")]
    for dtype in ("float64", "float32", "float16", "bfloat16"):
        assert sum(line.startswith(f"{dtype} ") for line in checked) == 6
    assert f"all {len(checked)} groups agree with the float64 reference" in lines
    assert "FAILED" not in result.stdout
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert len(rows) == 1 + 2 * 2 * 2  # head; N, dtypes, losses
    assert all(float(row[3]) > 0 for row in rows[1:])
    for word in (torch.__version__, extension.native.instruction_set(), extension.native.build_info()["cuda"]):
        assert word in result.stdout


@needs_no_gpu
def test_without_a_gpu(capsys, monkeypatch):
    monkeypatch.setattr("mmcuda.selfcheck.check_all", lambda *arguments: (1, 0))
    monkeypatch.setattr("mmcuda.selfcheck.benchmark", lambda *arguments: None)
    assert main(["selfcheck"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("no CUDA device was found (")
    assert first.endswith("): the CPU kernels are checked instead")
    assert main(["selfcheck", "--device", "cuda"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("mmcuda: error: --device cuda: no CUDA device was found (")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["selfcheck", "--device", "tpu"], "--device: expected one of "),
        (["selfcheck", "--device"], "--device: expected one argument"),
        (["selfcheck", "--devise", "cpu"], "unknown option --devise: did you mean --device?"),
        (["info", "--all"], "unknown option --all"),
    ],
)
def test_a_wrong_option_is_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mmcuda: error: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--compile"]])
def test_nothing_is_compiled_unless_asked(capsys, monkeypatch, options):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda loss, **settings: compiled.append(loss) or loss)
    monkeypatch.setattr("mmcuda.selfcheck.check_all", lambda *arguments: (1, 0))
    assert main(["selfcheck", "--device", "cpu", "--quick", *options]) == 0
    assert len(compiled) == len(options)
    assert ("torch.compile" in capsys.readouterr().out) == bool(options)


def test_modes_of_one_dtype_share_the_reference(monkeypatch):
    calls = {"fused": 0, "reference": 0}

    def counted(case, features, impl):
        calls[impl] += 1
        return outcome(case, features, impl)

    outcome = correctness.outcome
    monkeypatch.setattr(correctness, "outcome", counted)
    assert check_all("cpu", QUICK, {"one": MODES["float32"], "two": MODES["float32"]}) == (12, 0)
    assert calls["fused"] == 2 * calls["reference"] > 0


@pytest.mark.parametrize("sizes", [FULL, QUICK])
def test_every_variant_meets_every_dimension(sizes):
    for group, cases in groups(sizes):
        met = {(*map(case.options.get, ("positives", "denominator")), case.features[0].shape[-1]) for case in cases}
        variants = 1 if group == "pair margin" else len(VARIANTS)
        assert len(met) == variants * len(sizes.dimensions)


def test_works_without_the_packages_of_the_training_flow(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert main(["selfcheck", "--help"]) == 0
    assert main(["info"]) == 0


# ---- the alarm -----------------------------------------------------------------------------------------------------


def off_by_a_little(result):
    return (1.0001 * result[0], *result[1:])


def one_row_wrong(result):
    rows = result[0].clone()
    rows.view(-1, rows.shape[-1])[-1] *= 1.001
    return (rows, *result[1:])


def not_finite(result):
    return (result[0] * torch.nan, *result[1:])


def refused(result):
    raise RuntimeError("CUDA error in a kernel of mmcuda: misaligned address")


@pytest.mark.parametrize(
    ("operator", "wrong", "groups"),
    [
        ("contrastive_fwd", off_by_a_little, 5),
        ("contrastive_fwd", not_finite, 5),
        ("contrastive_fwd", refused, 5),
        ("contrastive_bwd", off_by_a_little, 5),
        ("contrastive_bwd", one_row_wrong, 5),
        ("contrastive_bwd", not_finite, 5),
        ("pair_margin_fwd", off_by_a_little, 1),
        ("pair_margin_bwd", one_row_wrong, 1),
    ],
)
def test_a_wrong_kernel_is_noticed(capsys, monkeypatch, operator, wrong, groups):
    names = ("label_intervals", "contrastive_fwd", "contrastive_bwd", "pair_margin_fwd", "pair_margin_bwd")
    operators = {name: getattr(torch.ops.mmcuda, name) for name in names}
    right, gradient = operators[operator], ops.gradient_of
    operators[operator] = lambda *arguments: wrong(right(*arguments))
    monkeypatch.setattr(ops, "operators", SimpleNamespace(**operators))
    if operator.endswith("bwd"):
        replaced = {right: operators[operator]}
        monkeypatch.setattr(ops, "gradient_of", lambda called, *rest: gradient(replaced.get(called, called), *rest))
    monkeypatch.setattr("mmcuda.selfcheck.MODES", FLOAT32)
    assert main(["selfcheck", "--device", "cpu", "--quick"]) == 1
    output = capsys.readouterr().out
    failed = [line for line in output.splitlines() if line.endswith("   FAILED")]
    assert f"{groups} of 6 groups FAILED" in output
    assert len(failed) == groups
    assert "| median ms |" not in output  # wrong kernels are not timed
    if wrong is refused:
        assert all("misaligned address" in line for line in failed)


def test_every_implementation_and_dtype_passes(implementation, capsys):
    """Among them the CUDA kernels, run on the CPU, with TF32."""
    modes = {name: mode for name, mode in MODES.items() if implementation == "simt" or mode.precision == "highest"}
    before = torch.get_float32_matmul_precision()
    assert check_all("cpu", QUICK, modes) == (6 * len(modes), 0), capsys.readouterr().out
    assert torch.get_float32_matmul_precision() == before


# ---- reasons why CUDA kernels do not serve ---------------------------------------------------------------------------

FAT = "80-virtual 80-real 90-real 100-real 120-real"


@pytest.fixture
def machine(monkeypatch):
    """Pretend a state of the build and a device."""

    def pretend(architectures, capability=None, driver=13000):
        state = f"compiled by nvcc 13.0 for {architectures}" if architectures else "not compiled: no nvcc was found"
        versions = {"cuda_architectures": architectures, "cuda_runtime": 13000, "cuda_driver": driver}
        build = extension.native.build_info() | {"cuda": state} | versions
        native = SimpleNamespace(build_info=lambda: build, instruction_set=extension.native.instruction_set)
        monkeypatch.setattr(extension, "native", native)
        if capability:
            monkeypatch.setattr(extension, "why_no_cuda_device", lambda: None)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA Something")
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        extension._cuda_reason.cache_clear()

    yield pretend
    extension._cuda_reason.cache_clear()


@pytest.mark.parametrize(
    ("architectures", "capability", "reason"),
    [
        (FAT, (8, 0), None),
        (FAT, (8, 6), None),
        (FAT, (9, 0), None),
        (FAT, (12, 1), None),
        ("80-virtual", (12, 0), None),
        ("80", (12, 0), None),
        ("90a-real", (9, 0), None),
        ("100f-real", (10, 3), None),
        (
            FAT,
            (7, 5),
            "NVIDIA Something has compute capability 7.5, the CUDA kernels need 8.0 or higher",
        ),
        (
            "90-real",
            (8, 6),
            "NVIDIA Something has compute capability 8.6, the CUDA kernels are compiled for 90-real: reinstall with"
            " TORCH_CUDA_ARCH_LIST=8.6",
        ),
        ("80-real", (9, 0), "NVIDIA Something has compute capability 9.0, the CUDA kernels are compiled"),
        ("90a", (10, 0), "NVIDIA Something has compute capability 10.0, the CUDA kernels are compiled"),
        ("", (9, 0), "this build has no CUDA kernels (not compiled: no nvcc was found)"),
    ],
)
def test_reasons(machine, architectures, capability, reason):
    machine(architectures, capability)
    given = extension.why_not_fused(torch.device("cuda", 0))
    assert given is None if reason is None else given.startswith(reason)
    assert ("fused kernels" if reason is None else reason) in describe()


@pytest.mark.parametrize(
    ("architectures", "driver", "needed"),
    [("90-real", 13000, None), ("90-real", 12080, "13.0"), ("80-virtual", 12080, "13.0"), ("80-virtual", 13010, None)],
)
def test_an_old_driver_is_a_reason(machine, architectures, driver, needed):
    machine(architectures, (9, 0), driver)
    given = extension.why_not_fused(torch.device("cuda", 0))
    told = f"the driver serves CUDA 12.8, the CUDA kernels need {needed}: update the driver"
    assert given is None if needed is None else given.startswith(told)


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_the_reason_is_a_constant_of_a_compiled_graph(machine, capability):
    machine(FAT, capability)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda x: x + (extension.why_not_fused(torch.device("cuda", 0)) is None), fullgraph=True, backend="eager"
    )
    assert compiled(torch.zeros(())) == (capability > (8, 0))


def test_a_gpu_without_kernels_is_told_by_selfcheck(machine, capsys):
    machine("", (9, 0))
    assert main(["selfcheck"]) == 2
    assert capsys.readouterr().err == (
        "mmcuda: error: no kernels to check on cuda: this build has no CUDA kernels (not compiled: no nvcc was found)\n"
    )


@needs_no_gpu
def test_the_driver_is_asked_what_is_wrong(machine, monkeypatch):
    machine(FAT)
    assert extension.why_not_fused("cuda") == extension.why_no_cuda_device()

    def too_old(*arguments, **options):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update it.")

    monkeypatch.setattr(torch, "empty", too_old)
    assert extension.why_no_cuda_device() == "The NVIDIA driver on your system is too old (found version 11040)"


# ---- the sweep -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(monkeypatch):
    """The module, with few rounds, where no package but torch and numpy is installed."""
    for name in ("pytorch_metric_learning", "pytorch_metric_learning.losses"):  # another test may have imported it
        monkeypatch.setitem(sys.modules, name, None)
    for folder in ("benchmarks", "benchmarks/gpu"):
        monkeypatch.syspath_prepend(ROOT / folder)
    sweep = importlib.import_module("sweep")
    monkeypatch.setattr(sweep, "ROUNDS", 2)
    return sweep


@needs_no_gpu
def test_the_sweep_says_that_it_needs_a_gpu():
    result = run(ROOT / "benchmarks/gpu/sweep.py", "--quick")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"the sweep needs a GPU: {extension.why_no_cuda_device()}"


def test_the_sweep_measures(sweep, tmp_path):
    """On the CPU, for want of a GPU, without compilation."""
    peers = {name: sweep.PEERS[name] for name in (sweep.LEAN, sweep.METRIC_LEARNING)}
    peers["broken"] = lambda features, labels: features.sum()
    sweep.sweep([sweep.Shape(64, 16, "bf16", 1), sweep.Shape(32, 16, "fp32", 2)], "cpu", tmp_path, peers)
    (table,) = tmp_path.glob("gpu-*.md")
    lines = table.read_text().splitlines()
    assert sum("| forward |" in line for line in lines) == 4
    assert sum("| forward + backward |" in line for line in lines) == 4
    assert [line.split(" | ")[0] for line in lines if "forward" in line] == ["| 32"] * 4 + ["| 64"] * 4
    left_out = json.loads(table.with_suffix(".json").read_text())["left_out"]
    assert [f"- left out: {note}" for note in left_out] == lines[-3:]
    assert sum("broken: AssertionError" in note for note in left_out) == 2
    (absent,) = [note for note in left_out if sweep.METRIC_LEARNING in note]  # told once
    assert absent.startswith(f"every shape, {sweep.METRIC_LEARNING}: ModuleNotFoundError: ")


def test_the_sweep_stops_in_time_and_keeps_what_it_has(sweep, tmp_path):
    shapes = [sweep.Shape(n, 16, "fp32", 1) for n in (32, 64, 128)]
    sweep.sweep(shapes, "cpu", tmp_path, {}, seconds=0)
    (path,) = tmp_path.glob("gpu-*.json")
    results = json.loads(path.read_text())
    assert {row["n"] for row in results["rows"]} == {32}
    assert results["left_out"] == ["2 of 3 shapes, for want of time"]


def test_the_sweep_begins_with_the_most_informative_shapes(sweep):
    assert len(set(sweep.FULL)) == len(sweep.FULL) == 9 * 4 * 4 * 2
    assert sweep.FULL[0] == (4096, 128, "bf16", 1)
    for axis, least in zip(zip(*sweep.FULL[:40], strict=True), (4, 4, 4, 2), strict=True):
        assert len(set(axis)) >= least
    assert sweep.FULL[-1] == (131072, 64, "fp16", 4)

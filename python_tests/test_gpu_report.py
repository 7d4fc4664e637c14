"""What the checks on a GPU are held against, and the report of their results."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from mmcuda.functional import cross_contrast_loss, supcon_loss
from mmcuda.relations import Attribute, Equal

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks/gpu"))
import exact
import losses
import report

# ---- what results are held against


def test_exact_supcon(monkeypatch):
    monkeypatch.setattr(exact, "CHUNK_BYTES", 8 * 30 * 7)  # chunks of 7 of 30 rows
    x = normalize(torch.randn(15, 2, 6, dtype=torch.float64), dim=-1).requires_grad_()
    labels = torch.tensor([0, 1, 2] * 4 + [3, 4, -1])
    loss, (gradient,) = exact.supcon(x, labels, 0.2)
    wanted = supcon_loss(x, [Attribute(labels + 1, Equal())], temperature=0.2, base_temperature=None, impl="reference")
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, x)[0], rtol=1e-10, atol=1e-12)


def test_exact_supcon_without_positives():
    x = normalize(torch.randn(6, 1, 4, dtype=torch.float64), dim=-1).requires_grad_()
    labels = torch.tensor([0, 0, 1, 2, 3, 3])
    loss, (gradient,) = exact.supcon(x, labels, 0.2)
    wanted = supcon_loss(x, [Attribute(labels, Equal())], temperature=0.2, base_temperature=None, impl="reference")
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, x)[0], rtol=1e-10, atol=1e-12)


def test_exact_clip(monkeypatch):
    monkeypatch.setattr(exact, "CHUNK_BYTES", 8 * 20 * 7)
    x, y = (normalize(torch.randn(20, 6, dtype=torch.float64), dim=-1).requires_grad_() for _ in range(2))
    loss, gradients = exact.clip(x, y, 0.2)
    wanted = cross_contrast_loss(x, y, temperature=0.2, symmetric=True, impl="reference")
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    for found, expected in zip(gradients, torch.autograd.grad(wanted, (x, y)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_errors_are_relative():
    exactly = (2.0, [torch.full((4,), 2.0, dtype=torch.float64)])
    loss, gradient = exact.errors(torch.tensor(2.2), [torch.tensor([2.0, 2, 2, 3])], exactly)
    assert loss == pytest.approx(0.1, rel=1e-6)
    assert gradient == pytest.approx(0.25)


def test_formula():
    """Operations of 1,000 x 10 features, forward + backward."""
    assert losses.supcon("cpu").flops(1000, 10, products=1) == 4e7
    assert losses.clip("cpu").flops(1000, 10, products=1) == 8e7
    assert losses.supcon("cpu").flops(1000, 10, products=3) == 12e7


# ---- the report of a full run; EVERY NUMBER HERE IS INVENTED, none was measured


def invented_row(task, name, n, d, dtype, ms, **more):
    row = {"task": task, "name": name, "n": n, "d": d, "dtype": dtype, "temperature": 0.07}
    row |= {"call_ms": [0.9 * ms, ms, 1.1 * ms], "graph_ms": [0.7 * ms, 0.8 * ms, 0.9 * ms], "peak_mb": 12.3}
    row |= {"loss_error": 1e-7, "gradient_error": 2e-3, "agrees": True, "tflops": 200.0, "of_ceiling": 0.5}
    return row | more


@pytest.fixture
def invented(tmp_path):
    """Results as a GPU would leave them."""
    launches = [
        ["void mmcuda::squares_kernel<float>(int)", 2.0],
        ["void mmcuda::forward_kernel<mmcuda::HalfMath<mmcuda::bfloat16>, mmcuda::IntervalSums>(int)", 40.0],
        ["void mmcuda::backward_kernel<mmcuda::HalfMath<mmcuda::bfloat16>, 2>(int)", 150.0],
        ["void mmcuda::add_gradients_kernel<float>(int)", 10.0],
    ]
    rows = [
        invented_row("supcon", "mmcuda", 8192, 128, "bf16", 0.25, launches=launches),
        invented_row("supcon", "dense", 8192, 128, "bf16", 5.0),
        invented_row("supcon", "mmcuda", 1024, 128, "bf16", 0.1, launches=launches),
        invented_row("supcon", "dense, compiled", 1024, 128, "bf16", 0.3, no_graph="E: waits"),
        invented_row("supcon", "mmcuda", 8192, 128, "fp32", 1.0),
        invented_row("clip", "mmcuda", 4096, 512, "bf16", 0.5),
        invented_row("clip", "memeff", 4096, 512, "bf16", 1.0, gradient_error=0.3, loss_error=None, agrees=False),
        {
            "task": "clip",
            "name": "inf-cl",
            "n": 4096,
            "d": 512,
            "dtype": "bf16",
            "temperature": 0.07,
            "problem": "E: no",
        },
        {"task": "clip", "name": "dense", "n": 4096, "d": 512, "dtype": "bf16", "temperature": 0.07, "begun": True},
    ]
    head = {"device": "NVIDIA H100 INVENTED", "temperature": 0.07, "torch": "0"}
    rates = {"device": "NVIDIA H100 INVENTED", "mma_sync_bf16_tflops": 600.0, "launch_us": 2.0}
    (tmp_path / "timings.json").write_text(json.dumps({**head, "ceilings": rates, "rows": rows}))
    device = {"name": "NVIDIA H100 INVENTED", "capability": [9, 0], "multiprocessors": 132, "memory_gb": 80.0}
    facts = {"device": device, "no_device": "", "date": "2000-01-01T00:00:00+00:00", "commit": "abc", "dirty": True}
    entries = {"timings": {"state": "passed", "seconds": 99.0}, "memcheck": {"state": "timed out", "seconds": 120.0}}
    summary = {**facts, "versions": {"torch": "0"}, "finished": True, "steps": entries}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    head = '"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"'
    lines = [
        "===== ncu 8192x128 bf16: passed, 9.0 s",
        "==PROF== Connected to process 1",
        head,
        '"0","forward_kernel","GPU Speed Of Light Throughput","Duration","usecond","41.50"',
        '"0","forward_kernel","GPU Speed Of Light Throughput","Compute (SM) Throughput","%","77.10"',
        '"0","forward_kernel","Memory Workload Analysis","Memory Throughput","Gbyte/second","900.0"',
        '"0","forward_kernel","GPU Speed Of Light Throughput","Memory Throughput","%","31.00"',
        '"0","forward_kernel","Launch Statistics","Registers Per Thread","register/thread","253"',
        '"1","backward_kernel","GPU Speed Of Light Throughput","Duration","nsecond","1,500"',
    ]
    (tmp_path / "ncu.txt").write_text("\n".join(lines))
    return tmp_path


def test_report_on_full_results(invented, tmp_path):
    text = report.report(invented)
    assert "commit abc, with uncommitted changes" in text
    assert "| memcheck | timed out | 120 |" in text
    assert "| mma sync bf16 tflops | 600.0 |" in text
    assert "| bf16 | 8,192 | 128 | 0.07 | 0.25 | 0.2 | 50% | 12.3 | 1e-07 | 2e-03 | 5 (20.0x) |  |" in text
    assert "| bf16 | 1,024 | 128 | 0.07 | 0.1 | 0.08 | 50% | 12.3 | 1e-07 | 2e-03 |  | 0.3 (3.0x) |" in text
    assert "| bf16 | 4,096 | 512 | 0.07 | 0.5 | 0.4 | 50% | 12.3 | 1e-07 | 2e-03 | 1 (2.0x) |" in text
    assert "- clip, inf-cl, 4,096 x 512, bf16: E: no" in text
    assert "- clip, dense, 4,096 x 512, bf16: not finished when the time of all rows was over" in text
    assert "- supcon, dense, compiled, 1,024 x 128, bf16: no CUDA graph, E: waits" in text
    assert "- clip, memeff, 4,096 x 512, bf16: error of the loss not finite, of the gradient 3e-01" in text
    beside = next(line for line in text.splitlines() if line.startswith("| bf16 | 8,192 | 128 | 40.0 |"))
    _, _, _, forward, modelled, ratio, backward, *_, everything = [
        cell.strip() for cell in beside.strip("|").split("|")
    ]
    assert (forward, backward, everything) == ("40.0", "160.0", "202.0")
    in_readme = re.search(r"H100: modelled milliseconds.*?\| forward bfloat16 \| 128 \| \w+ \| ([\d.]+) ms",
                          report.README.read_text(), re.DOTALL)  # fmt: skip
    assert float(modelled) == pytest.approx(1e3 * float(in_readme[1]), rel=0.01)
    assert float(ratio) == pytest.approx(40 / float(modelled), abs=0.01)
    assert "| backward_kernel | 150.0 |" in text
    assert "| 8192x128 bf16: forward_kernel | 41.5 | 77.10 | 31.00 |" in text
    assert "8192x128 bf16: backward_kernel" not in text  # of 1.5 us: it has returned at once


def test_report_is_written_between_its_marks(invented, tmp_path):
    readme = tmp_path / "docs/README.md"
    readme.parent.mkdir()
    readme.write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")
    for _ in range(2):
        assert report.main([str(invented), "--write"], readme) == 0
        text = readme.read_text()
        assert text.startswith(f"before\n\n{report.BEGIN}\n\nNVIDIA H100 INVENTED, 80 GB; ")
        assert text.endswith(f"(../chart.svg)\n\n{report.END}\n\nafter\n")
        assert "old" not in text
    chart = (invented / "chart.svg").read_text()
    assert chart.count("<svg") == 1
    readme.write_text("no marks\n")
    report.main([str(invented), "--write"], readme)
    assert readme.read_text().startswith(f"no marks\n\n## Measured\n\n{report.BEGIN}\n")

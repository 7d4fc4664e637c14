"""The losses as citizens of PyTorch: compiled, under autocast, transformed, checkpointed, distributed, in threads."""

import copy
import pickle
import subprocess
import sys
import threading
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch._subclasses import FakeTensorMode
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from mmcuda import losses
from mmcuda._native import extension, ops
from mmcuda._native.encode import LossInputs, contrastive_arguments
from mmcuda.functional import cross_contrast_loss, pair_margin_loss, supcon_loss
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Within

pytestmark = pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or "")


def unit(*shape, dtype=torch.float32):
    return normalize(torch.randn(*shape), dim=-1).to(dtype)


def attributes(size, keys=None):
    """Every kind of relation, with missing values."""
    values = [
        (torch.arange(size) % 4 - 1, Equal(), 1.0),
        (torch.rand(size).masked_fill(torch.arange(size) % 5 == 0, torch.nan), Within(0.2), 0.5),
        (torch.rand(size), Rbf(0.1), 2.0),
        (torch.randint(-1, 2, (size, 7)), Overlap(), 1.0),
    ]
    if keys is None:
        return [Attribute(*each) for each in values]
    return [Attribute(*each, keys=each[0][torch.arange(keys) % size]) for each in values]


# Losses of features [N, 2, 8] with a temperature; each uses the fused kernels in another way.
LOSSES = {
    "self": lambda x, tau, **options: supcon_loss(x, attributes(len(x)), temperature=tau, **options),
    "mask": lambda x, tau, **options: supcon_loss(
        x, mask=torch.ones(len(x), len(x)).tril(), temperature=tau, positives="in", **options
    ),
    "cross": lambda x, tau, **options: cross_contrast_loss(
        x[:, 0], x[1:, 1], attributes(len(x), len(x) - 1), temperature=tau, denominator="sincere", **options
    ),
    "clip": lambda x, tau, **options: cross_contrast_loss(
        x[:, 0], x[:, 1], temperature=tau, symmetric=True, reduction="has_positives", **options
    ),
    "slice": lambda x, tau, **options: cross_contrast_loss(
        x[2:5].flatten(0, 1), x.flatten(0, 1), attributes(len(x)), temperature=tau, anchor_offset=4, views=2, **options
    ),
    "margin": lambda x, tau, **options: tau * pair_margin_loss(x[:, 0], None, attributes(len(x)), **options),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def gradients(loss, features, temperature=0.1, **options):
    """Return the loss and its gradients of features and temperature."""
    features = features.detach().clone().requires_grad_()
    tau = torch.tensor(temperature, requires_grad=True)
    torch.manual_seed(0)  # of attributes()
    value = loss(features, tau, **options)
    return [value.detach(), *torch.autograd.grad(value, (features, tau))]


# ---- torch.compile -------------------------------------------------------------------------------------------------


@each_loss
def test_compiled_once_for_all_sizes(loss):
    """fullgraph, a learnable temperature, and no second compilation for another batch size."""
    torch.compiler.reset()
    run = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for samples in (12, 7, 33):
        x, tau = unit(samples, 2, 8).requires_grad_(), torch.tensor(0.1, requires_grad=True)
        with torch.compiler.set_stance("default" if samples == 12 else "fail_on_recompile"):
            torch.manual_seed(0)
            value = run(x, tau)
            found = [value, *torch.autograd.grad(value, (x, tau))]
        for compiled, eager in zip(found, gradients(loss, x), strict=True):
            torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("dynamic", [False, None])
def test_compiled_by_inductor(dynamic):
    torch.compiler.reset()
    criterion = losses.ClinicalSupConLoss({"grade": Equal(), "cst": Within(0.3)})
    compiled = torch.compile(criterion, fullgraph=True, dynamic=dynamic)
    for samples in (6, 11):
        labels = {"grade": torch.arange(samples) % 3, "cst": torch.rand(samples)}
        x = unit(samples, 2, 8).requires_grad_()
        (eager,), (fused,) = (torch.autograd.grad(run(x, labels), x) for run in (criterion, compiled))
        torch.testing.assert_close(fused, eager)


# ---- autocast ------------------------------------------------------------------------------------------------------


class DtypesOfOperators(TorchDispatchMode):
    """Notes the dtype of the features that the operators get."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "mmcuda" and "fwd" in func.__name__:
            self.seen[func.__name__.split(".")[0]] = args[0].dtype
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_leaves_the_features_as_they_are(dtype):
    x = unit(20, 2, 16, dtype=dtype)
    for name, loss in LOSSES.items():
        outside = gradients(loss, x)
        with torch.autocast("cpu", dtype=torch.bfloat16), DtypesOfOperators() as spy:
            inside = gradients(loss, x)
        assert spy.seen == {"pair_margin_fwd" if name == "margin" else "contrastive_fwd": dtype}
        assert inside[0].dtype == torch.float32
        assert all(torch.equal(*both) for both in zip(inside, outside, strict=True))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reference = gradients(loss, x, impl="reference")[0]
        torch.testing.assert_close(reference, outside[0], rtol=1e-4, atol=1e-5)


# ---- derivatives ---------------------------------------------------------------------------------------------------


@each_loss
def test_function_transforms_fall_back_to_the_reference(loss):
    x = unit(9, 2, 8, dtype=torch.float64)

    def value(x, impl="auto"):
        torch.manual_seed(0)
        return loss(x, 0.1, impl=impl)

    expected = gradients(loss, x, impl="reference")
    torch.testing.assert_close(torch.func.grad(value)(x), expected[1])
    if loss is not LOSSES["margin"]:  # torch.cdist has no forward derivative
        _, along = torch.func.jvp(value, (x,), (x,))
        torch.testing.assert_close(along, (expected[1] * x).sum())
    both = torch.stack([x, x.flip(0)])
    vmapped = torch.func.vmap(value, randomness="same")(both)
    torch.testing.assert_close(vmapped, torch.stack([value(each) for each in both]))
    for transform in (torch.func.grad, lambda f: torch.func.vmap(f, randomness="same")):
        with pytest.raises(RuntimeError, match=r"torch\.func transforms are not supported.*use impl='reference'"):
            transform(lambda x: value(x, "fused"))(both[0] if transform is torch.func.grad else both)


@each_loss
def test_second_derivative_is_refused(loss):
    """create_graph by itself costs nothing; only using that graph is refused, whatever it would be used for."""
    x, tau = unit(9, 2, 8).requires_grad_(), torch.tensor(0.1, requires_grad=True)
    refused = pytest.raises(NotImplementedError, match="use impl='reference' for higher derivatives")
    for wanted in (x, tau):
        (grad,) = torch.autograd.grad(loss(x, tau), wanted, create_graph=True)
        if not (loss is LOSSES["margin"] and wanted is tau):  # there the loss is linear in tau
            with refused:
                grad.square().sum().backward()
    (grad,) = torch.autograd.grad(loss(x, tau), x, create_graph=True)
    torch.manual_seed(0)
    with refused:  # a gradient penalty beside the loss
        (loss(x, tau) + grad.square().sum()).backward()
    upstream = torch.ones((), requires_grad=True)
    (grad,) = torch.autograd.grad(loss(x, tau), x, upstream, create_graph=True)
    with refused:
        grad.sum().backward()


@each_loss
def test_create_graph_alone_works(loss):
    x = unit(9, 2, 8).requires_grad_()
    torch.manual_seed(0)
    loss(x, torch.tensor(0.1)).backward(create_graph=True)
    torch.testing.assert_close(x.grad.detach(), gradients(loss, x)[1])


def test_second_derivative_by_the_reference():
    x = unit(5, 2, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: supcon_loss(x, impl="reference"), x)


@each_loss
def test_backward_twice_through_a_kept_graph(loss):
    x = unit(9, 2, 8).requires_grad_()
    value = loss(x, 0.1)
    first = torch.autograd.grad(value, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, x)[0], first)


@each_loss
def test_changed_features_are_noticed(loss):
    """The backward reads the features: it refuses those that were changed in place."""
    x = unit(9, 2, 8).requires_grad_()
    features = x * 1
    value = loss(features, 0.1)
    features.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def layouts():
    x = unit(12, 2, 8)
    yield "transposed", x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    yield "strided", x.repeat_interleave(3, 0)[::3]
    yield "expanded", x[:1].expand(12, 2, 8)
    yield "negated", torch._neg_view(x)


@each_loss
def test_gradients_of_inputs_that_are_not_contiguous(loss):
    for what, x in layouts():
        leaf = x.detach().requires_grad_()
        torch.manual_seed(0)
        (grad,) = torch.autograd.grad(loss(leaf, 0.1), leaf)
        assert torch.equal(grad, gradients(loss, x.contiguous())[1]), what


@each_loss
def test_checkpoint(loss):
    x, layer = unit(9, 2, 8), torch.nn.Linear(8, 8)

    def step(x):
        torch.manual_seed(0)
        return loss(normalize(layer(x), dim=-1), 0.1)

    expected = torch.autograd.grad(step(x), layer.weight)[0]
    value = checkpoint(step, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(value, layer.weight)[0], expected)


@each_loss
def test_deterministic_algorithms(loss):
    x = unit(150, 2, 8)
    expected = gradients(loss, x)
    torch.use_deterministic_algorithms(True)
    try:
        found = gradients(loss, x)
        gradients(loss, x, impl="reference")
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


# ---- tensors without data ------------------------------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_meta_tensors(impl, loss):
    with torch.device("meta"):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.empty(9, 2, 8, dtype=dtype, requires_grad=True)
            value = loss(x, torch.tensor(0.1), impl=impl)
            assert (value.device.type, value.shape, value.dtype) == ("meta", (), torch.float32)
            assert torch.autograd.grad(value, x)[0].shape == x.shape


@each_loss
@pytest.mark.parametrize("impl", ["auto", "fused", "reference"])
def test_fake_tensors(impl, loss):
    with FakeTensorMode():
        x, tau = torch.empty(9, 2, 8, requires_grad=True), torch.tensor(0.1, requires_grad=True)
        value = loss(x, tau, impl=impl)
        assert (value.device.type, value.shape, value.dtype) == ("cpu", (), torch.float32)
        assert [grad.shape for grad in torch.autograd.grad(value, (x, tau))] == [x.shape, ()]
        weights = torch.ones(9)
        assert supcon_loss(x, anchor_weights=weights, reduction="none", impl=impl).shape == (9, 2)


# ---- threads and processes -----------------------------------------------------------------------------------------

THREADS = """
import os, torch
from mmcuda.functional import supcon_loss

def threads_after(count):
    torch.set_num_threads(count)
    supcon_loss(torch.ones(1000, 2, 8), impl="fused")
    return len(os.listdir("/proc/self/task"))

alone = len(os.listdir("/proc/self/task"))
print(*(threads_after(count) - alone for count in (1, 4)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_as_many_threads_as_torch_is_told():
    result = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["0", "3"], result.stderr


def test_other_python_threads_run_meanwhile():
    """A thread that wakes every millisecond does so while a kernel runs: the kernel does not hold the GIL."""
    anchors = unit(12_000, 64)
    inputs = LossInputs(anchors, None, [Attribute(torch.arange(12_000) % 9, Equal())], None, 1, 0)
    arguments = contrastive_arguments(inputs, 0.1, "out", "all", False, "none")
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    thread.start()
    try:
        begin = time.monotonic()
        ops.operators.contrastive_fwd(*arguments)
        end = time.monotonic()
    finally:
        torch.set_num_threads(threads)
        done.set()
        thread.join()
    middle = [t for t in ticks if begin + (end - begin) / 4 < t < end - (end - begin) / 4]
    assert len(middle) >= 5


def test_calls_from_several_threads_at_once():
    inputs = [unit(300, 2, 16) for _ in range(4)]
    expected = [gradients(LOSSES["clip"], x) for x in inputs]
    found = [[] for _ in inputs]

    def work(index):
        for _ in range(10):
            x, tau = inputs[index].detach().requires_grad_(), torch.tensor(0.1, requires_grad=True)
            value = LOSSES["clip"](x, tau)
            found[index].append([value.detach(), *torch.autograd.grad(value, (x, tau))])

    workers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for results, want in zip(found, expected, strict=True):
        assert len(results) == 10
        assert all(torch.equal(*both) for result in results for both in zip(result, want, strict=True))


SAMPLES, VIEWS = 12, 2
IMAGES = torch.randn(SAMPLES, VIEWS, 6, generator=torch.Generator().manual_seed(0))
CST = torch.tensor([200.0, 210, 300, torch.nan, 305, 215, 400, 290, 212, torch.nan, 298, 402])


def encoder():
    torch.manual_seed(0)
    return torch.nn.Linear(6, 4)


def one_of_two(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = DistributedDataParallel(encoder())
    samples = SAMPLES // 2
    anchors = normalize(model(IMAGES[rank * samples : (rank + 1) * samples]), dim=-1).flatten(0, 1)
    loss = cross_contrast_loss(
        anchors,
        torch.cat(all_gather(anchors)),
        [Attribute(CST, Within(20.0))],
        anchor_offset=rank * len(anchors),
        views=VIEWS,
        impl="fused",
    )
    loss.backward()
    dist.all_reduce(loss.detach_())
    if rank == 0:
        torch.save({"loss": loss / 2, "gradient": model.module.weight.grad}, f"{folder}/result.pt")
    dist.destroy_process_group()


def test_rows_of_each_process_against_the_columns_of_all(tmp_path, monkeypatch):
    """The mean of the processes' losses and gradients is that of the whole batch in one process."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # not by the host's name, which need not resolve
    mp.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    result = torch.load(tmp_path / "result.pt")
    model = encoder()
    loss = supcon_loss(normalize(model(IMAGES), dim=-1), [Attribute(CST, Within(20.0))])
    loss.backward()
    torch.testing.assert_close(result["loss"], loss.detach())
    torch.testing.assert_close(result["gradient"], model.weight.grad)


# ---- copies of modules ---------------------------------------------------------------------------------------------

GRADE = torch.arange(8) % 3
MODULES = {
    losses.SupConLoss: ({}, (unit(8, 2, 6), GRADE)),
    losses.SINCERELoss: ({}, (unit(8, 2, 6), GRADE)),
    losses.MultiLabelSupConLoss: ({}, (unit(8, 2, 6), torch.eye(8, 5).int())),
    losses.ContinuousSupConLoss: ({"relation": Rbf(1.0)}, (unit(8, 2, 6), GRADE.float())),
    losses.ClinicalSupConLoss: (
        {"relations": {"grade": Equal(), "cst": Within(0.5)}},
        (unit(8, 2, 6), {"grade": GRADE, "cst": torch.rand(8)}),
    ),
    losses.NTXentLoss: ({"temperature": torch.nn.Parameter(torch.tensor(0.2))}, (unit(8, 2, 6),)),
    losses.MICLeLoss: ({}, (unit(8, 2, 6), GRADE)),
    losses.ClipLoss: ({"temperature": 0.2}, (unit(8, 6), unit(8, 6))),
    losses.PairMarginLoss: ({"margin": 0.8}, (unit(8, 6), GRADE)),
    losses.QueuedSupConLoss: ({"queue_size": 10, "feature_size": 6}, (unit(8, 6), unit(8, 6), GRADE)),
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_of_modules(copied, module):
    """They are like the original, with parameters and buffers of their own."""
    options, inputs = MODULES[module]
    original = module(**options)
    original(*inputs)
    if hasattr(original, "enqueue"):
        original.enqueue(*inputs[1:])
    other = copied(original)
    assert repr(other) == repr(original)
    assert other.state_dict().keys() == original.state_dict().keys()
    for mine, its in zip(original.parameters(), other.parameters(), strict=True):
        assert mine.data_ptr() != its.data_ptr()
    assert torch.equal(other(*inputs), original(*inputs))
    assert torch.equal(other(*inputs), original(*inputs))


def test_every_loss_is_copied():
    assert {module.__name__ for module in MODULES} == set(losses.__all__)


def test_default_device_does_not_matter():
    features, labels = unit(8, 2, 5), torch.arange(8) % 3
    expected = supcon_loss(features, [Attribute(labels, Equal())])
    with torch.device("meta"):
        loss = supcon_loss(features, [Attribute(labels, Equal())])
    torch.testing.assert_close(loss, expected)

"""The modules: SupContrast's call and numbers, peers' numbers where conventions agree, clear errors."""

import copy
import functools
import math
import re

import pytest
import pytorch_metric_learning.losses as peers
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from mmcuda import (
    ClinicalSupConLoss,
    ClipLoss,
    ContinuousSupConLoss,
    Equal,
    MICLeLoss,
    MultiLabelSupConLoss,
    NTXentLoss,
    Overlap,
    PairMarginLoss,
    QueuedSupConLoss,
    Rbf,
    SINCERELoss,
    SupConLoss,
    Within,
)
from mmcuda._native import extension


@pytest.fixture(params=["reference", "fused"])
def impl(request):
    there = extension.native is not None and hasattr(torch.ops.mmcuda, "contrastive_fwd")
    if request.param == "fused" and not there:
        pytest.skip("no fused kernels in this build")
    return request.param


@pytest.fixture
def features():
    return unit(12, 3, 16)


@pytest.fixture
def embeddings():
    return unit(12, 16)


def unit(*shape):
    return normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def assert_same(loss, expected, *inputs):
    """The two functions of ``inputs`` have the same value and the same gradients."""
    results = []
    for function in (loss, expected):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        value = function(*leaves)
        results.append((value.detach(), *torch.autograd.grad(value, leaves)))
    torch.testing.assert_close(results[0], results[1])


def supcontrast(features, labels=None, mask=None, temperature=0.07, contrast_mode="all", base_temperature=0.07):
    """SupContrast's loss as its authors define it: views concatenated view by view, log-probabilities over all others.

    Khosla et al. 2020, equation 2; an anchor without positives counts as 0.
    """
    b, v = features.shape[:2]
    rows = features.flatten(2).transpose(0, 1).flatten(0, 1)
    anchors = rows if contrast_mode == "all" else rows[:b]
    if labels is not None:
        mask = labels[:, None] == labels
    elif mask is None:
        mask = torch.eye(b)
    mask = mask.to(rows.dtype).repeat(len(anchors) // b, v)
    others = torch.ones_like(mask)
    others[torch.arange(len(anchors)), torch.arange(len(anchors))] = 0
    logits = anchors @ rows.T / temperature
    log_probability = logits - (logits.exp() * others).sum(1, keepdim=True).log()
    positives = (mask * others).sum(1)
    mean = (mask * others * log_probability).sum(1) / positives.where(positives > 0, 1)
    return -(temperature / base_temperature) * mean.mean()


# SupConLoss


@pytest.mark.parametrize("contrast_mode", ["all", "one"])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supcon_has_supcontrasts_numbers(features, temperature, contrast_mode, impl):
    settings = {"temperature": temperature, "contrast_mode": contrast_mode, "base_temperature": 0.1}
    loss = SupConLoss(**settings, impl=impl)
    labels = torch.arange(12) % 4
    mask = (torch.rand(12, 12) < 0.3).double()  # asymmetric; some anchors have no positives
    assert_same(loss, lambda z: supcontrast(z, **settings), features)
    assert_same(lambda z: loss(z, labels), lambda z: supcontrast(z, labels, **settings), features)
    assert_same(lambda z: loss(z, mask=mask), lambda z: supcontrast(z, mask=mask, **settings), features)


def test_supcon_has_supcontrasts_defaults(features, impl):
    labels = torch.arange(12) % 4
    torch.testing.assert_close(SupConLoss(impl=impl)(features, labels), supcontrast(features, labels))
    torch.testing.assert_close(
        SupConLoss(0.1, "one", 0.2, impl=impl)(features), supcontrast(features, None, None, 0.1, "one", 0.2)
    )


def test_supcon_accepts_column_labels_and_flattens_features(features, impl):
    labels = torch.arange(12) % 4
    loss = SupConLoss(impl=impl)
    expected = loss(features, labels)
    torch.testing.assert_close(loss(features.unflatten(2, (4, 4)), labels[:, None]), expected)


def test_supcon_takes_embeddings_of_one_view(embeddings, impl):
    labels = torch.arange(12) % 5
    losses = SupConLoss(reduction="none", impl=impl)(embeddings, labels)
    assert losses.shape == (12,)
    torch.testing.assert_close(losses[:, None], SupConLoss(reduction="none", impl=impl)(embeddings[:, None], labels))
    torch.testing.assert_close(losses.mean(), SupConLoss(impl=impl)(embeddings, labels))


def test_supcon_without_base_temperature_is_not_scaled(features, impl):
    labels = torch.arange(12) % 4
    scaled = SupConLoss(0.2, base_temperature=0.05, impl=impl)(features, labels)
    torch.testing.assert_close(4 * SupConLoss(0.2, base_temperature=None, impl=impl)(features, labels), scaled)


@pytest.mark.parametrize(
    ("positives", "denominator"),
    [("in", "all"), ("out", "negatives"), ("in", "negatives"), ("out", "sincere")],
)
def test_supcon_variants_are_their_formulas(embeddings, positives, denominator, impl):
    labels = torch.arange(12) % 4
    others = ~torch.eye(12, dtype=torch.bool)
    same = (labels[:, None] == labels) & others

    def expected(z):
        logits = z @ z.T / 0.2
        exp = logits.exp()
        of_positives = (exp * same).sum(1) / same.sum(1)
        pull = of_positives.log() if positives == "in" else (logits * same).sum(1) / same.sum(1)
        negatives = (exp * ~same * others).sum(1)
        if denominator == "sincere":
            each = (exp + negatives[:, None]).log()
            return ((each * same).sum(1) / same.sum(1) - pull).mean()
        return ((negatives if denominator == "negatives" else (exp * others).sum(1)).log() - pull).mean()

    loss = SupConLoss(0.2, base_temperature=None, positives=positives, denominator=denominator, impl=impl)
    assert_same(lambda z: loss(z, labels), expected, embeddings)


def test_anchor_weights_weigh_samples(features, impl):
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, -1, 3, 3])
    weights = torch.rand(12, dtype=torch.float64)
    losses = SupConLoss(reduction="none", impl=impl)(features, labels)
    assert losses.shape == (12, 3)
    weighted = SupConLoss(impl=impl)(features, labels, anchor_weights=weights)
    torch.testing.assert_close(weighted, (weights[:, None] * losses).sum() / (3 * weights.sum()))
    torch.testing.assert_close(SupConLoss(reduction="sum", impl=impl)(features, labels), losses.sum())


# Conventions beside pytorch-metric-learning's, each claim of the table in SupConLoss' docstring


LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 4, 5])  # 2, 4 and 5 have one sample


@pytest.mark.parametrize("base_temperature", [0.1, None])
def test_supcon_has_metric_learnings_numbers(impl, base_temperature):
    loss = SupConLoss(0.1, base_temperature=base_temperature, reduction="has_positives", impl=impl)
    peer = peers.SupConLoss(temperature=0.1)
    raw = 3 * torch.randn(12, 16, dtype=torch.float64)
    assert_same(lambda x: loss(normalize(x, dim=1), LABELS), lambda x: peer(x, LABELS), raw)  # it normalises itself


def test_anchors_without_positives_stay_in_supcontrasts_mean_only(embeddings, impl):
    of_all = SupConLoss(0.1, base_temperature=0.1, impl=impl)(embeddings, LABELS)
    torch.testing.assert_close(of_all, supcontrast(embeddings[:, None], LABELS, None, 0.1, "all", 0.1))
    torch.testing.assert_close(of_all * 12 / 9, peers.SupConLoss(temperature=0.1)(embeddings, LABELS))


def test_a_batch_of_one_class_is_nothing_to_metric_learning_only(embeddings, impl):
    labels = torch.zeros(12)
    assert peers.SupConLoss(temperature=0.1)(embeddings, labels) == 0
    expected = supcontrast(embeddings[:, None], labels, None, 0.1, "all", 0.1)
    torch.testing.assert_close(SupConLoss(0.1, base_temperature=0.1, impl=impl)(embeddings, labels), expected)


def test_features_are_normalised_by_metric_learning_only(embeddings, impl):
    loss, peer = SupConLoss(0.5, base_temperature=0.5, impl=impl), peers.SupConLoss(temperature=0.5)
    torch.testing.assert_close(peer(3 * embeddings, LABELS), peer(embeddings, LABELS))
    of_long = supcontrast(3 * embeddings[:, None], LABELS, None, 0.5, "all", 0.5)
    torch.testing.assert_close(loss(3 * embeddings, LABELS), of_long)
    assert not torch.allclose(of_long, loss(embeddings, LABELS))


def test_missing_labels_are_classes_to_the_peers(embeddings, impl):
    settings = {"temperature": 0.1, "base_temperature": None, "reduction": "has_positives", "impl": impl}
    with_missing = LABELS.masked_fill(LABELS == 3, -1)
    peer = peers.SupConLoss(temperature=0.1)(embeddings, with_missing)
    torch.testing.assert_close(peer, SupConLoss(**settings)(embeddings, LABELS))  # -1 is a class like any other
    theirs = supcontrast(embeddings[:, None], with_missing)
    torch.testing.assert_close(theirs, SupConLoss(impl=impl)(embeddings, LABELS))
    alone = LABELS.where(LABELS != 3, torch.arange(20, 32))
    torch.testing.assert_close(
        SupConLoss(**settings)(embeddings, with_missing), SupConLoss(**settings)(embeddings, alone)
    )
    not_a_number = LABELS.double().masked_fill(LABELS == 3, math.nan)
    peer = peers.SupConLoss(temperature=0.1)(embeddings, not_a_number)
    torch.testing.assert_close(peer, SupConLoss(**settings)(embeddings, not_a_number))


def test_views_of_a_sample_without_label_are_positives_to_us_only(features, impl):
    labels = torch.tensor([0.0, 0, 1, 1, 2, 2, 2, 3, 3, math.nan, 4, 4])
    losses = SupConLoss(reduction="none", impl=impl)(features, labels)
    assert (losses[9] > 0).all()
    known = torch.arange(12) != 9
    torch.testing.assert_close(supcontrast(features, labels), (losses * known[:, None]).mean())  # 0, in its mean
    peer = peers.SupConLoss(temperature=0.07)(features.flatten(0, 1), labels.repeat_interleave(3))
    torch.testing.assert_close(peer, losses[known].mean())  # it leaves them out


# Losses without labels


def test_ntxent_has_metric_learnings_numbers(impl):
    raw = torch.randn(2, 8, 16, dtype=torch.float64)
    loss = NTXentLoss(0.1, impl=impl)
    peer = peers.NTXentLoss(temperature=0.1)
    wrapped = peers.SelfSupervisedLoss(peers.NTXentLoss(temperature=0.1))
    labels = torch.arange(8).repeat(2)

    def ours(x):
        return loss(*normalize(x, dim=-1))

    assert_same(ours, lambda x: peer(x.flatten(0, 1), labels), raw)
    assert_same(ours, lambda x: wrapped(*x), raw)


def test_ntxent_takes_views_together_or_apart(features, impl):
    views = features[:, :2]
    loss = NTXentLoss(impl=impl)
    torch.testing.assert_close(loss(views), SupConLoss(0.1, base_temperature=None, impl=impl)(views))
    torch.testing.assert_close(loss(views[:, 0], views[:, 1]), loss(views))
    assert NTXentLoss(reduction="none", impl=impl)(views).shape == (12, 2)


def test_micle_attracts_images_of_one_bag(features, impl):
    bags = torch.tensor([3, 3, 3, 7, 7, 9, 9, 9, 9, -1, -1, 12])  # two bags are not known, one has one image
    alone = bags.where(bags != -1, torch.arange(20, 32))
    expected = SupConLoss(0.1, base_temperature=None, impl=impl)
    assert_same(lambda z: MICLeLoss(impl=impl)(z, bags), lambda z: expected(z, alone), features)
    torch.testing.assert_close(MICLeLoss(impl=impl)(features[:, 0], bags), expected(features[:, 0], alone))


# Losses with labels of other kinds


def one_by_one(z, labels, temperature):
    """SINCERE's loss (arXiv 2309.14277), pair by pair."""
    losses = []
    for i, anchor in enumerate(z):
        positives = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        negatives = sum((anchor @ z[n] / temperature).exp() for n in range(len(z)) if labels[n] != labels[i])
        each = [-((e := (anchor @ z[p] / temperature).exp()) / (e + negatives)).log() for p in positives]
        losses.append(sum(each) / len(each) if each else 0 * anchor.sum())
    return torch.stack(losses)


def test_sincere_is_a_loop_over_pairs(embeddings, impl):
    loss = SINCERELoss(0.2, reduction="none", impl=impl)
    torch.testing.assert_close(loss(embeddings, LABELS), one_by_one(embeddings, LABELS, 0.2))
    mean = SINCERELoss(0.2, impl=impl)
    assert_same(lambda z: mean(z, LABELS), lambda z: one_by_one(z, LABELS, 0.2).mean(), embeddings)


def test_sincere_is_metric_learnings_ntxent_where_all_have_as_many_positives(embeddings, impl):
    loss, peer = SINCERELoss(0.1, reduction="has_positives", impl=impl), peers.NTXentLoss(temperature=0.1)
    labels = torch.arange(12) % 4
    raw = torch.randn(12, 16, dtype=torch.float64)
    assert_same(lambda x: loss(normalize(x, dim=1), labels), lambda x: peer(x, labels), raw)
    number = (LABELS[:, None] == LABELS).sum(1) - 1  # of positives; where it differs, the peer's mean is over pairs
    of_pairs = (one_by_one(embeddings, LABELS, 0.1) * number).sum() / number.sum()
    torch.testing.assert_close(peer(embeddings, LABELS), of_pairs)
    assert not torch.allclose(of_pairs, loss(embeddings, LABELS))


def test_sincere_with_sincere_is_ntxent(features, impl):
    views = features[:, :2]
    torch.testing.assert_close(SINCERELoss(0.1, impl=impl)(views, torch.arange(12)), NTXentLoss(0.1, impl=impl)(views))
    of_mean = SupConLoss(base_temperature=None, denominator="sincere", impl=impl)
    labels = torch.arange(12) % 4
    torch.testing.assert_close(SINCERELoss(impl=impl)(features, labels), of_mean(features, labels))


def test_multi_label_weighs_positives_by_overlap(features, impl):
    labels = torch.randint(0, 2, (12, 5))
    labels[3] = labels[4] = 0  # two without findings agree
    labels[5, 2:] = -1
    labels[6] = -1
    overlap = torch.zeros(12, 12, dtype=torch.float64)
    for i, a in enumerate(labels.tolist()):
        for j, b in enumerate(labels.tolist()):
            known = [(x, y) for x, y in zip(a, b, strict=True) if x >= 0 and y >= 0]
            either = sum(x or y for x, y in known)
            overlap[i, j] = sum(x and y for x, y in known) / either if either else bool(known)
    overlap.fill_diagonal_(1)
    expected = SupConLoss(base_temperature=None, impl=impl)
    loss = MultiLabelSupConLoss(impl=impl)
    assert_same(lambda z: loss(z, labels), lambda z: expected(z, mask=overlap), features)
    as_floats = labels.double().masked_fill(labels == -1, math.nan)
    torch.testing.assert_close(loss(features, as_floats), loss(features, labels))


def test_continuous_weighs_positives_by_distance(features, impl):
    values = torch.linspace(200, 400, 12, dtype=torch.float64)
    values[4] = math.nan
    gaussian = torch.exp(-((values[:, None] - values) ** 2) / (2 * 30.0**2)).nan_to_num(0).fill_diagonal_(1)
    expected = SupConLoss(base_temperature=None, impl=impl)
    loss = ContinuousSupConLoss(30.0, impl=impl)
    assert loss.relation == ContinuousSupConLoss(Rbf(30.0)).relation == Rbf(30.0)
    assert_same(lambda z: loss(z, values), lambda z: expected(z, mask=gaussian), features)
    near = ((values[:, None] - values).abs() <= 40).double().fill_diagonal_(1)
    within = ContinuousSupConLoss(Within(40), impl=impl)
    assert_same(lambda z: within(z, values), lambda z: expected(z, mask=near), features)


def test_clinical_is_the_weighted_sum_of_its_values(features, impl):
    grade = torch.arange(12) % 5
    thickness = torch.linspace(200, 400, 12).masked_fill(torch.arange(12) == 3, math.nan)
    both = ClinicalSupConLoss({"grade": Equal(), "cst": Within(40.0)}, {"cst": 0.25}, temperature=0.1, impl=impl)
    of_grade = ClinicalSupConLoss({"grade": Equal()}, temperature=0.1, impl=impl)
    of_thickness = ClinicalSupConLoss({"cst": Within(40.0)}, temperature=0.1, impl=impl)
    values = {"grade": grade, "cst": thickness, "not used": grade}
    expected = of_grade(features, values) + 0.25 * of_thickness(features, values)
    torch.testing.assert_close(both(features, values), expected)
    torch.testing.assert_close(
        of_grade(features, values), SupConLoss(temperature=0.1, impl=impl)(features, grade), msg="one value is SupCon"
    )


def test_clinical_takes_every_relation(features, impl):
    findings, values = torch.randint(0, 2, (12, 4)), 10 * torch.randn(12)
    labels = {"id": torch.arange(12) % 5, "bcva": values, "cst": values, "findings": findings}
    relations = {"id": Equal(), "bcva": Within(5), "cst": Rbf(5), "findings": Overlap()}
    loss = ClinicalSupConLoss(relations, {"bcva": 2.0, "findings": 0.5}, base_temperature=None, impl=impl)
    expected = (
        SupConLoss(base_temperature=None, impl=impl)(features, labels["id"])
        + 2 * ContinuousSupConLoss(Within(5), impl=impl)(features, values)
        + ContinuousSupConLoss(5, impl=impl)(features, values)
        + 0.5 * MultiLabelSupConLoss(impl=impl)(features, findings)
    )
    torch.testing.assert_close(loss(features, labels), expected)
    assert ClinicalSupConLoss(relations, reduction="none", impl=impl)(features, labels).shape == (12, 3)


# Losses of one set of embeddings against another


def test_clip_is_the_cross_entropy_of_both_directions(embeddings, impl):
    text = unit(12, 16)
    loss = ClipLoss(impl=impl).double()
    assert loss.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    target = torch.arange(12)

    def expected(image, text, log_scale):
        logits = log_scale.exp() * image @ text.T
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2

    assert_same(loss, lambda image, text: expected(image, text, loss.logit_scale), embeddings, text)
    wanted = torch.autograd.grad(expected(embeddings, text, loss.logit_scale), loss.logit_scale)
    torch.testing.assert_close(torch.autograd.grad(loss(embeddings, text), loss.logit_scale), wanted)
    losses = ClipLoss(reduction="none", impl=impl)(embeddings, text)
    torch.testing.assert_close(losses, expected_of_each(embeddings @ text.T / 0.07), rtol=1e-5, atol=1e-5)


def expected_of_each(logits):
    target = torch.arange(len(logits))
    return torch.cat([cross_entropy(x, target, reduction="none") for x in (logits, logits.T)])


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.float64])
def test_clip_with_labels_attracts_all_pairs_of_a_class(embeddings, impl, kind):
    text = unit(12, 16)
    labels = LABELS.to(kind, copy=True)
    if kind != torch.uint8:
        labels[labels == 3] = -1 if kind == torch.int64 else math.nan
    same = labels[:, None] == labels
    same = (same & (labels != -1)).double().fill_diagonal_(1)  # a pair is always its own positive
    target = same / same.sum(1, keepdim=True)
    loss = ClipLoss(0.1, impl=impl).double()

    def expected(image, text):
        logits = loss.logit_scale.exp() * image @ text.T
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2

    assert_same(lambda image, text: loss(image, text, labels), expected, embeddings, text)


def test_clip_keeps_its_scale_below_100_and_comes_back(embeddings, impl):
    loss = ClipLoss(impl=impl).double()
    with torch.no_grad():
        loss.logit_scale.fill_(7.0)
    loss(embeddings, unit(12, 16)).backward()  # texts at random: a smaller scale is better
    assert loss.logit_scale.exp().item() == pytest.approx(100)
    assert loss.temperature.item() == pytest.approx(0.01)
    assert loss.logit_scale.grad > 0
    assert list(loss.state_dict()) == ["logit_scale"]


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.int8, torch.bool])
def test_labels_of_any_integer_type_are_the_same_classes(embeddings, impl, kind):
    labels = torch.tensor([0, 0, 1, 1, 3, 3, 9, 9, 9, 4, 4, 4]) if kind != torch.bool else torch.arange(12) % 2
    if kind in (torch.uint8, torch.uint16):
        labels = labels.masked_fill(labels == 9, torch.iinfo(kind).max)  # a class, not -1
    if kind == torch.int8:
        labels = labels.masked_fill(labels == 9, -1)
    text = unit(12, 16)
    queue = QueuedSupConLoss(12, 16, impl=impl)
    queue.enqueue(unit(12, 16), labels.to(kind))
    for loss in (
        lambda of: ClipLoss(impl=impl)(embeddings, text, of),
        lambda of: PairMarginLoss(impl=impl)(embeddings, of, text),
        lambda of: PairMarginLoss(impl=impl)(embeddings, of, text, of),
        lambda of: queue(embeddings, text, of),
    ):
        assert loss(labels.to(kind)) == loss(labels)


def margin_loss(x, y, same, allowed, margin):
    distance = torch.stack([torch.stack([(a - b).norm() for b in y]) for a in x])
    each = torch.where(same, distance**2, (margin - distance).clamp_min(0) ** 2)
    return each[allowed].mean()


@pytest.mark.parametrize("margin", [0.5, 1.4, 5.0])
def test_pair_margin_is_its_formula(embeddings, impl, margin):
    text = unit(12, 16)
    labels = LABELS.masked_fill(LABELS == 3, -1)
    own = torch.eye(12, dtype=torch.bool)
    everything = torch.ones(12, 12, dtype=torch.bool)
    same = ((labels[:, None] == labels) & (labels != -1)) | own
    loss = PairMarginLoss(margin, impl=impl)
    assert_same(
        lambda x, y: loss(x, labels, y), lambda x, y: margin_loss(x, y, same, everything, margin), embeddings, text
    )
    # of the embeddings among themselves; the distance of one to itself has no gradient, so it is left out of the check
    torch.testing.assert_close(loss(embeddings, labels), margin_loss(embeddings, embeddings, same, ~own, margin))


def test_pair_margin_takes_others_with_their_own_labels(embeddings, impl):
    prompts, classes = unit(4, 16), torch.tensor([0, 1, 3, -1])
    labels = LABELS.masked_fill(LABELS == 4, -1)
    same = (labels[:, None] == classes) & (labels[:, None] != -1)
    loss = PairMarginLoss(impl=impl)
    everything = torch.ones(12, 4, dtype=torch.bool)
    assert_same(
        lambda x, y: loss(x, labels, y, classes),
        lambda x, y: margin_loss(x, y, same, everything, 1.0),
        embeddings,
        prompts,
    )
    assert PairMarginLoss(reduction="none", impl=impl)(embeddings, labels, prompts, classes).shape == (12,)


# The memory queue


def queue_batches(count, size=3, labelled=True):
    for _ in range(count):
        labels = torch.randint(-1, 3, (size,)) if labelled else None
        yield unit(size, 8).float(), unit(size, 8).float(), labels


def queued(queries, keys, labels, memory, memory_labels, temperature):
    """The loss against the keys and the memory, by cross-entropy with soft targets."""
    columns = torch.cat([keys, *memory])
    same = torch.zeros(len(queries), len(columns))
    if labels is not None:
        same = ((labels[:, None] == torch.cat([labels, *memory_labels])) & (labels[:, None] != -1)).float()
    same[:, : len(queries)].fill_diagonal_(1)
    return cross_entropy(queries @ columns.T / temperature, same / same.sum(1, keepdim=True))


@pytest.mark.parametrize("labelled", [True, False])
def test_queue_is_the_latest_keys(impl, labelled):
    loss = QueuedSupConLoss(queue_size=8, feature_size=8, temperature=0.2, impl=impl)  # 3 does not divide 8
    memory, memory_labels = [], []
    for queries, keys, labels in queue_batches(7, labelled=labelled):
        assert loss.full == (bool(memory) and len(memory[0]) == 8)
        value = loss(queries, keys, labels)
        torch.testing.assert_close(value, queued(queries, keys, labels, memory, memory_labels, 0.2))
        loss.enqueue(keys, labels)
        memory = [torch.cat([*memory, keys])[-8:]]
        memory_labels = [torch.cat([*memory_labels, labels])[-8:]] if labelled else []
        assert {tuple(row) for row in memory[0].tolist()} <= {tuple(row) for row in loss.queue.tolist()}


def test_queue_has_gradients_of_the_batch_only(impl):
    loss = QueuedSupConLoss(queue_size=6, feature_size=8, impl=impl)
    (first, second) = queue_batches(2)
    earlier = first[1].clone().requires_grad_()
    loss.enqueue(earlier, first[2])
    assert not loss.queue.requires_grad
    assert not list(loss.parameters())
    assert_same(
        lambda q, k: loss(q, k, second[2]),
        lambda q, k: queued(q, k, second[2], [first[1]], [first[2]], 0.07),
        *second[:2],
    )


def test_queue_changes_in_enqueue_only(impl):
    loss = QueuedSupConLoss(queue_size=6, feature_size=8, impl=impl)
    first, second = queue_batches(2)
    loss.enqueue(*first[1:])
    before = copy.deepcopy(loss.state_dict())
    assert loss(*second) == loss(*second)
    torch.testing.assert_close(loss.state_dict(), before)


def test_queue_takes_more_keys_than_queries(impl):
    loss = QueuedSupConLoss(queue_size=8, feature_size=8, temperature=0.2, impl=impl)
    (queries, keys, labels), (_, gathered, gathered_labels) = *queue_batches(1), *queue_batches(1, size=8)
    loss.enqueue(gathered, gathered_labels)
    assert loss.full
    expected = queued(queries, keys, labels, [gathered], [gathered_labels], 0.2)
    torch.testing.assert_close(loss(queries, keys, labels), expected)


def test_full_queue_compiles_once(impl):
    loss = QueuedSupConLoss(queue_size=6, feature_size=8, impl=impl)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    for queries, keys, labels in queue_batches(14):
        queries.requires_grad_()
        value = (compiled if loss.full else loss)(queries, keys, labels)
        torch.testing.assert_close(value, loss(queries, keys, labels))
        value.backward()
        loss.enqueue(keys, labels)
    assert len(graphs) == 1


def test_queue_can_be_checkpointed(impl):
    loss = QueuedSupConLoss(queue_size=6, feature_size=8, impl=impl)
    for queries, keys, labels in queue_batches(4):
        checkpointed = functools.partial(checkpoint, loss, labels=labels, use_reentrant=False)
        assert_same(checkpointed, functools.partial(loss, labels=labels), queries, keys)
        loss.enqueue(keys, labels)


def test_queue_continues_from_its_state(tmp_path, impl):
    batches = list(queue_batches(6))
    loss = QueuedSupConLoss(queue_size=7, feature_size=8, impl=impl)
    for _, keys, labels in batches[:4]:
        loss.enqueue(keys, labels)
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    other = QueuedSupConLoss(queue_size=7, feature_size=8, impl=impl)
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert other.full
    for batch in batches[4:]:
        assert loss(*batch) == other(*batch)
        loss.enqueue(*batch[1:])
        other.enqueue(*batch[1:])
    assert (loss.queue == other.queue).all()
    assert (loss.queue_labels == other.queue_labels).all()


def test_queue_takes_half_precision_and_float64(impl):
    queries, keys, labels = next(queue_batches(1))
    expected = QueuedSupConLoss(6, 8, 0.5, impl=impl)(queries, keys, labels)
    for dtype in (torch.bfloat16, torch.float64):
        loss = QueuedSupConLoss(6, 8, 0.5, impl=impl)
        value = loss(queries.to(dtype), keys.to(dtype), labels)
        torch.testing.assert_close(value, expected.to(value.dtype), rtol=0.02, atol=0.02)
        loss.enqueue(keys.to(dtype), labels)
        assert loss(queries.to(dtype), keys.to(dtype), labels).isfinite()
        assert loss.queue.dtype == torch.float32


# Temperature and derivatives


def with_temperature(impl):
    """Every module that has a temperature, as a function of it, and a call."""
    z, labels, values = unit(6, 2, 8), torch.tensor([0, 0, 1, 1, 1, -1]), torch.randn(6)
    clinical = {"a": labels, "b": values}
    options = {"impl": impl}
    return {
        "SupConLoss": lambda t: SupConLoss(t, base_temperature=None, **options)(z, labels),
        "SupConLoss, scaled": lambda t: SupConLoss(t, base_temperature=0.1, **options)(z, labels),
        "ClinicalSupConLoss": lambda t: ClinicalSupConLoss(
            {"a": Equal(), "b": Rbf(1.0)}, temperature=t, base_temperature=None, **options
        )(z, clinical),
        "NTXentLoss": lambda t: NTXentLoss(t, **options)(z),
        "MICLeLoss": lambda t: MICLeLoss(t, **options)(z, labels),
        "MultiLabelSupConLoss": lambda t: MultiLabelSupConLoss(t, **options)(z, torch.eye(6)[labels]),
        "ContinuousSupConLoss": lambda t: ContinuousSupConLoss(1.0, t, **options)(z, values),
        "SINCERELoss": lambda t: SINCERELoss(t, **options)(z, labels),
        "QueuedSupConLoss": lambda t: QueuedSupConLoss(6, 8, t, **options)(z[:, 0], z[:, 1], labels),
    }


@pytest.mark.parametrize("name", with_temperature("reference"))
def test_temperature_is_learnable(name, impl):
    loss = with_temperature(impl)[name]
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    value = loss(temperature)
    torch.testing.assert_close(value, loss(0.2))
    (gradient,) = torch.autograd.grad(value, temperature)
    difference = (loss(0.2 + 1e-5) - loss(0.2 - 1e-5)) / 2e-5
    torch.testing.assert_close(gradient, difference, rtol=1e-6, atol=1e-7)


def test_a_temperature_that_is_a_parameter_is_the_modules():
    loss = SupConLoss(torch.nn.Parameter(torch.tensor(0.07)))
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    assert "temperature=0.07 (learnable), contrast_mode='all'" in repr(loss)
    assert not list(SupConLoss(torch.tensor(0.07)).parameters())


def test_gradients_are_the_derivatives():
    z, y = torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, -1])
    findings, values = torch.randint(0, 2, (4, 3)), torch.randn(4)
    temperature, options = torch.tensor(0.7, dtype=torch.float64), {"impl": "reference"}
    queue = QueuedSupConLoss(4, 3, 0.7, **options)
    queue.enqueue(torch.randn(3, 3), torch.tensor([0, 1, -1]))
    for loss in (
        lambda z, t: SupConLoss(t, **options)(z, labels),
        lambda z, t: NTXentLoss(t, **options)(z),
        lambda z, t: MICLeLoss(t, **options)(z, labels),
        lambda z, t: SINCERELoss(t, **options)(z, labels),
        lambda z, t: MultiLabelSupConLoss(t, **options)(z, findings),
        lambda z, t: ContinuousSupConLoss(1.0, t, **options)(z, values),
    ):
        assert torch.autograd.gradcheck(loss, (z.requires_grad_(), temperature.requires_grad_()))
    pair = (z.detach()[:, 0].requires_grad_(), y.requires_grad_())
    assert torch.autograd.gradcheck(ClipLoss(**options).double(), pair)
    assert torch.autograd.gradcheck(lambda x, y: PairMarginLoss(1.5, **options)(x, labels, y), pair)
    assert torch.autograd.gradcheck(lambda x, y: queue(x, y, labels), pair)


# Messages: each public argument of each module


VIEWS, ROWS, IDS = torch.ones(4, 2, 8), torch.ones(4, 8), torch.zeros(4)
SETTINGS = {  # what every module that has the setting says of a wrong one
    "temperature": (0.0, ValueError, "temperature must be positive and finite, got 0.0"),
    "reduction": ("average", ValueError, "reduction must be 'none', 'mean', 'has_positives' or 'sum', got 'average'"),
    "impl": ("cuda", ValueError, "impl must be 'auto', 'fused' or 'reference', got 'cuda'"),
}
MODULES = {  # how each is made, and a call that is right
    SupConLoss: ({}, (VIEWS, IDS)),
    ClinicalSupConLoss: ({"relations": {"cst": Equal()}}, (VIEWS, {"cst": IDS})),
    NTXentLoss: ({}, (VIEWS,)),
    MICLeLoss: ({}, (VIEWS, IDS)),
    MultiLabelSupConLoss: ({}, (VIEWS, torch.zeros(4, 3))),
    ContinuousSupConLoss: ({"relation": 1.0}, (VIEWS, IDS)),
    SINCERELoss: ({}, (VIEWS, IDS)),
    ClipLoss: ({}, (ROWS, ROWS)),
    PairMarginLoss: ({}, (ROWS, IDS, ROWS)),
    QueuedSupConLoss: ({"queue_size": 8, "feature_size": 8}, (ROWS, ROWS)),
}


@pytest.mark.parametrize(
    ("module", "setting"), [(m, s) for m in MODULES for s in SETTINGS if (m, s) != (PairMarginLoss, "temperature")]
)
def test_settings_that_all_share(module, setting):
    arguments, call = MODULES[module]
    wrong, error, message = SETTINGS[setting]
    module(**arguments, impl="reference")(*call)
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        module(**(arguments | {"impl": "reference", setting: wrong}))(*call)


@pytest.mark.parametrize(
    ("module", "setting", "error", "message"),
    [
        (SupConLoss, {"temperature": "warm"}, TypeError, "temperature must be a number, got str"),
        (
            SupConLoss,
            {"temperature": torch.ones(2)},
            ValueError,
            "temperature must be a number or a floating tensor [], got torch.float32 [2]",
        ),
        (SupConLoss, {"contrast_mode": "both"}, ValueError, "contrast_mode must be 'all' or 'one', got 'both'"),
        (SupConLoss, {"base_temperature": -1}, ValueError, "base_temperature must be positive and finite, got -1"),
        (SupConLoss, {"positives": "around"}, ValueError, "positives must be 'out' or 'in', got 'around'"),
        (
            SupConLoss,
            {"denominator": "none"},
            ValueError,
            "denominator must be 'all', 'negatives' or 'sincere', got 'none'",
        ),
        (
            SupConLoss,
            {"positives": "in", "denominator": "sincere"},
            ValueError,
            "denominator must be 'all' or 'negatives' for positives='in', got 'sincere'",
        ),
        (ClinicalSupConLoss, {"relations": {}}, ValueError, "relations must name at least one clinical value"),
        (
            ClinicalSupConLoss,
            {"relations": {"cst": "equal"}},
            TypeError,
            "relations['cst'] must be Equal(), Within(tolerance), Rbf(sigma) or Overlap(), got 'equal'",
        ),
        (ClinicalSupConLoss, {"weights": {"bcva": 1.0}}, ValueError, "weights must be of ['cst'], got also ['bcva']"),
        (
            ClinicalSupConLoss,
            {"weights": {"cst": -1.0}},
            ValueError,
            "weights['cst'] must be not negative and finite, got -1.0",
        ),
        (
            ClinicalSupConLoss,
            {"base_temperature": 0},
            ValueError,
            "base_temperature must be positive and finite, got 0",
        ),
        (
            ContinuousSupConLoss,
            {"relation": Equal()},
            TypeError,
            "relation must be Rbf(sigma), Within(tolerance) or a number, got Equal()",
        ),
        (ContinuousSupConLoss, {"relation": -1.0}, ValueError, "sigma must be positive and finite, got -1.0"),
        (ClipLoss, {"temperature": 0.001}, ValueError, "temperature must be at least 0.01, got 0.001"),
        (ClipLoss, {"temperature": torch.tensor(0.1)}, TypeError, "temperature must be a number, got Tensor"),
        (PairMarginLoss, {"margin": -1.0}, ValueError, "margin must be not negative and finite, got -1.0"),
        (PairMarginLoss, {"margin": "wide"}, TypeError, "margin must be a number, got str"),
        (QueuedSupConLoss, {"queue_size": 0}, ValueError, "queue_size must be a positive whole number, got 0"),
        (QueuedSupConLoss, {"feature_size": 1.5}, ValueError, "feature_size must be a positive whole number, got 1.5"),
    ],
)
def test_settings_of_one_module(module, setting, error, message):
    arguments, call = MODULES[module]
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        module(**(arguments | setting))(*call)


@pytest.mark.parametrize(
    ("module", "call", "error", "message"),
    [
        (
            SupConLoss,
            (torch.ones(8), IDS),
            ValueError,
            "features must be [B, V, D] or [N, D] with at least one element, got shape [8]",
        ),
        (SupConLoss, ([1.0], IDS), TypeError, "features must be a tensor, got list"),
        (SupConLoss, (VIEWS, torch.zeros(5)), ValueError, "labels must have one value per sample, B = 4, got 5"),
        (SupConLoss, (VIEWS, [0] * 4), TypeError, "labels must be a tensor, got list"),
        (SupConLoss, (VIEWS, IDS, torch.eye(4)), ValueError, "labels and mask cannot be given together"),
        (SupConLoss, (VIEWS, None, torch.eye(3)), ValueError, "mask must be real and [B, B] = [4, 4]"),
        (SupConLoss, (VIEWS, None, -torch.eye(4)), ValueError, "mask must be finite and not negative"),
        (SupConLoss, (VIEWS, IDS, None, torch.ones(3)), ValueError, "anchor_weights must be real and [B] = [4]"),
        (SupConLoss, (VIEWS, IDS, None, -torch.ones(4)), ValueError, "anchor_weights must be finite and not negative"),
        (SupConLoss, (ROWS,), ValueError, "labels or mask must be given: features [4, 8] have one view a sample"),
        (SupConLoss, (VIEWS[:, :1],), ValueError, "labels or mask must be given: features [4, 1, 8] have one view"),
        (ClinicalSupConLoss, (VIEWS, IDS), TypeError, "labels must map clinical values to tensors, got Tensor"),
        (ClinicalSupConLoss, (VIEWS, {"bcva": IDS}), ValueError, "labels must have ['cst'], got no ['cst']"),
        (ClinicalSupConLoss, (torch.ones(4), {"cst": IDS}), ValueError, "features must be [B, V, D] or [N, D]"),
        (NTXentLoss, (ROWS,), ValueError, "features must be [B, 2, D], or [B, D] beside second, got shape [4, 8]"),
        (NTXentLoss, (torch.ones(4, 3, 8),), ValueError, "features must be [B, 2, D], or [B, D] beside second"),
        (NTXentLoss, (VIEWS, VIEWS), ValueError, "features must be [N, D] with at least one element"),
        (NTXentLoss, (ROWS, torch.ones(3, 8)), ValueError, "second must be like features, torch.float32 [4, 8] on cpu"),
        (NTXentLoss, (None,), TypeError, "features must be a tensor, got NoneType"),
        (MICLeLoss, (VIEWS, torch.zeros(3)), ValueError, "bags must have one value per sample, B = 4, got 3"),
        (MICLeLoss, (VIEWS, [0] * 4), TypeError, "bags must be a tensor, got list"),
        (MICLeLoss, (torch.ones(4), IDS), ValueError, "features must be [B, V, D] or [N, D]"),
        (MultiLabelSupConLoss, (VIEWS, IDS), ValueError, "labels must be real and [B, C], C > 0, for Overlap()"),
        (MultiLabelSupConLoss, (VIEWS, 2 * torch.ones(4, 3)), ValueError, "labels must be 0 or 1, or -1 or NaN where"),
        (MultiLabelSupConLoss, (torch.ones(4), IDS[:, None]), ValueError, "features must be [B, V, D] or [N, D]"),
        (ContinuousSupConLoss, (VIEWS, torch.zeros(4, 3)), ValueError, "labels must be real and [B], got"),
        (ContinuousSupConLoss, (torch.ones(4), IDS), ValueError, "features must be [B, V, D] or [N, D]"),
        (SINCERELoss, (VIEWS, torch.zeros(3)), ValueError, "labels must have one value per sample, B = 4, got 3"),
        (SINCERELoss, (torch.ones(4), IDS), ValueError, "features must be [B, V, D] or [N, D]"),
        (ClipLoss, (VIEWS, ROWS), ValueError, "image must be [N, D] with at least one element, got shape [4, 2, 8]"),
        (
            ClipLoss,
            (ROWS.int(), ROWS),
            ValueError,
            "image must be float16, bfloat16, float32 or float64, got torch.int32",
        ),
        (ClipLoss, (ROWS, ROWS.double()), ValueError, "text must be like image, torch.float32 [4, 8] on cpu, got"),
        (ClipLoss, (ROWS, "text"), TypeError, "text must be a tensor, got str"),
        (
            ClipLoss,
            (ROWS, ROWS, torch.zeros(3)),
            ValueError,
            "labels must be real and [N] = [4], got torch.float32 [3]",
        ),
        (ClipLoss, (ROWS, ROWS, [0] * 4), TypeError, "labels must be a tensor, got list"),
        (PairMarginLoss, (VIEWS, IDS, ROWS), ValueError, "features must be [N, D] with at least one element"),
        (PairMarginLoss, (VIEWS, IDS), ValueError, "features must be [N, D] with at least one element"),
        (PairMarginLoss, (VIEWS, IDS, ROWS, IDS), ValueError, "features must be [N, D] with at least one element"),
        (PairMarginLoss, (ROWS, torch.zeros(3), ROWS), ValueError, "labels must be real and [N] = [4]"),
        (PairMarginLoss, (ROWS, torch.zeros(3)), ValueError, "labels must be real and [N] = [4]"),
        (PairMarginLoss, (ROWS, IDS, torch.ones(3, 8)), ValueError, "others must be like features"),
        (PairMarginLoss, (ROWS, IDS, torch.ones(3, 7), torch.zeros(3)), ValueError, "others must be like features"),
        (
            PairMarginLoss,
            (ROWS, IDS, torch.ones(3, 8), torch.zeros(2)),
            ValueError,
            "other_labels must be real and [M] = [3]",
        ),
        (
            PairMarginLoss,
            (ROWS, IDS, torch.ones(3, 8), torch.zeros(3).long()),
            ValueError,
            "other_labels must be floating if labels are, torch.float32, got torch.int64",
        ),
        (PairMarginLoss, (ROWS, IDS, None, IDS), ValueError, "other_labels must come with others, got no others"),
        (QueuedSupConLoss, (VIEWS, ROWS), ValueError, "queries must be [N, D] with at least one element"),
        (
            QueuedSupConLoss,
            (ROWS[:, :7],) * 2,
            ValueError,
            "queries must be [B, 8], D = feature_size, got shape [4, 7]",
        ),
        (QueuedSupConLoss, (ROWS, ROWS[:3]), ValueError, "keys must be like queries, torch.float32 [4, 8] on cpu"),
        (QueuedSupConLoss, (ROWS, ROWS, IDS), ValueError, "labels must be integers, got torch.float32"),
        (QueuedSupConLoss, (ROWS, ROWS, IDS.long()[:3]), ValueError, "labels must be real and [B] = [4], got"),
        (QueuedSupConLoss, (ROWS, ROWS, [0] * 4), TypeError, "labels must be a tensor, got list"),
    ],
)
def test_arguments_of_a_call(module, call, error, message):
    arguments, _ = MODULES[module]
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        module(**arguments)(*call)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ((VIEWS,), ValueError, "keys must be [B, D] with at least one element, got shape [4, 2, 8]"),
        ((ROWS[:, :7],), ValueError, "keys must be [B, 8], D = feature_size, got shape [4, 7]"),
        ((torch.ones(9, 8),), ValueError, "keys must be at most queue_size = 8, got 9"),
        ((ROWS.to("meta"),), ValueError, "keys must be on the device of the queue, cpu, got meta"),
        (([1.0],), TypeError, "keys must be a tensor, got list"),
        ((ROWS, IDS), ValueError, "labels must be integers, got torch.float32"),
        ((ROWS, IDS.long()[:3]), ValueError, "labels must be real and [B] = [4], got torch.int64 [3]"),
        ((ROWS, IDS.long().to("meta")), ValueError, "labels must be on the device of the queue, cpu, got meta"),
        ((ROWS, [0] * 4), TypeError, "labels must be a tensor, got list"),
    ],
)
def test_arguments_of_enqueue(call, error, message):
    queue = QueuedSupConLoss(queue_size=8, feature_size=8)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        queue.enqueue(*call)
    assert not queue.queue.any()


def test_clinical_names_the_value_that_is_wrong(features):
    loss = ClinicalSupConLoss({"cst": Within(25), "bcva": Equal()})
    with pytest.raises(ValueError, match=re.escape("labels['bcva'] must have one value per sample, B = 12, got 3")):
        loss(features, {"cst": torch.zeros(12), "bcva": torch.zeros(3)})
    with pytest.raises(TypeError, match=re.escape("labels['cst'] must be a tensor, got list")):
        loss(features, {"cst": [1.0] * 12, "bcva": torch.zeros(12)})
    with pytest.raises(ValueError, match=re.escape("labels must have ['bcva', 'cst'], got no ['bcva']")):
        loss(features, {"cst": torch.zeros(12)})


def test_print_shows_the_settings():
    loss = ClinicalSupConLoss({"bcva": Equal(), "cst": Within(25)}, weights={"cst": 0.5})
    assert "1 * bcva (equal) + 0.5 * cst (within 25), temperature=0.07" in repr(loss)
    assert "temperature=0.1, contrast_mode='one'" in repr(SupConLoss(0.1, "one"))
    assert "relation=Rbf(sigma=25.0), temperature=0.07" in repr(ContinuousSupConLoss(25.0))
    assert "temperature=0.07 (learnable), reduction='mean'" in repr(ClipLoss())
    assert "queue_size=8, feature_size=4, temperature=0.07" in repr(QueuedSupConLoss(8, 4))
    assert "margin=0.5, reduction='sum'" in repr(PairMarginLoss(0.5, reduction="sum"))

"""Each method: what it learns from, its loss, and what it refuses."""

import ast
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import mmcuda
from mmcuda import ClinicalSupConLoss, SupConLoss
from mmcuda.data import Augment
from mmcuda.errors import UserError
from mmcuda.methods import (
    Clinical,
    Method,
    Random,
    Shuffled,
    SimCLR,
    base,
    get_method,
    make_method,
    register_method,
    registered_methods,
)
from mmcuda.models.encoder import build_encoder

SMALL = {"projection_hidden": 16, "projection_size": 8}
AUGMENT = Augment()


def data_of(method, readings, seed=0):
    return method.training_set(readings, AUGMENT, seed)


def table(labels):
    """Sorted rows of labels, missing as -1."""
    rows = torch.stack(list(labels.values()), dim=1).nan_to_num(-1).tolist()
    return sorted(rows), rows


def loss_of(method, readings, cohort=None):
    """The model, a batch of 32 images and its loss."""
    torch.manual_seed(0)
    model = method.build(build_encoder("darknet_tiny", 3, 32), cohort or readings).eval()
    data = data_of(method, cohort or readings)
    batch = data.batch(np.arange(32)[:, None].repeat(2, 1), torch.Generator().manual_seed(0), torch.device("cpu"))
    return model, batch, method.loss(model, batch)


def test_clinical_labels_are_those_of_the_training_images(readings):
    cohort = readings
    labels = data_of(Clinical(), readings).labels
    assert list(labels) == list(cohort.clinical)
    for name, label in cohort.clinical.items():
        np.testing.assert_array_equal(labels[name].numpy(), label.values[cohort.train])


def test_one_label_is_learnt_alone(readings):
    method = Clinical(labels=("diameter",), **SMALL)
    assert list(data_of(method, readings).labels) == ["diameter"]
    alone = readings.with_labels(clinical={"diameter": readings.clinical["diameter"]})
    assert loss_of(method, readings)[2] == loss_of(Clinical(**SMALL), readings, alone)[2]


def test_shuffling_moves_whole_rows_to_other_images(readings):
    clinical, shuffled = (table(data_of(method, readings).labels) for method in (Clinical(), Shuffled()))
    assert shuffled[0] == clinical[0]
    assert np.mean([a == b for a, b in zip(shuffled[1], clinical[1], strict=True)]) < 0.2
    assert table(data_of(Shuffled(), readings, seed=1).labels)[1] != shuffled[1]


@pytest.mark.parametrize("method", [Clinical(**SMALL), Shuffled(**SMALL), SimCLR(**SMALL)], ids=lambda m: m.name)
def test_the_loss_is_that_of_the_two_augmented_views(readings, method):
    cohort = readings
    model, batch, loss = loss_of(method, readings)
    generator, tau = torch.Generator().manual_seed(0), method.temperature
    features = model(AUGMENT(torch.from_numpy(cohort.images[cohort.train[:32]]), 2, generator))
    if isinstance(method, SimCLR):
        expected = SupConLoss(tau, base_temperature=tau, impl="reference")(features)
    else:
        relations = {name: label.relation for name, label in cohort.clinical.items()}
        weights = {name: label.weight for name, label in cohort.clinical.items()}
        criterion = ClinicalSupConLoss(relations, weights, tau, base_temperature=tau, impl="reference")
        expected = criterion(features, batch.labels)
    torch.testing.assert_close(loss, expected)


def test_class_aware_batches_hold_positives_of_the_chosen_labels(readings):
    cohort = readings
    data = data_of(Clinical(sampler="class_aware", balance=("diameter",)), readings)
    assert data.balance == {"diameter": cohort.clinical["diameter"].relation.tolerance}
    values = data.labels["diameter"].numpy()
    near = abs(values[:, None] - values) <= data.balance["diameter"]
    has_any = near.sum(axis=1) > 1
    for positions, _ in (views.T for views in data.epoch(32, seed=0)):
        found = near[np.ix_(positions, positions)].sum(axis=1) > 1
        assert found[has_any[positions]].all()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (SimCLR(), set()),
        (Clinical(), set()),
        (Clinical(sampler="class_aware", labels=("margin",)), {"margin"}),
        (Clinical(sampler="class_aware", labels=("margin",), balance=("diameter",)), {"margin"}),
    ],
)
def test_only_labels_that_are_learnt_from_are_balanced(readings, method, expected):
    assert set(data_of(method, readings).balance) == expected


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Clinical(labels=("diametre",)), r"clinical.labels must be among .* got diametre: did you mean diameter\?"),
        (Shuffled(sampler="class_aware", balance=("size",)), "shuffled.balance must be among .* got size"),
    ],
)
def test_a_label_that_the_cohort_lacks_is_named(readings, method, message):
    with pytest.raises(UserError, match=message):
        method.check(readings)


def test_what_a_method_needs_of_the_cohort_is_asked_for(readings):
    bare = readings.with_labels(clinical={})
    for method in (Clinical(), Shuffled()):
        with pytest.raises(UserError, match=f"{method.name} pretraining needs clinical labels, got none: name some"):
            method.check(bare)
    SimCLR().check(bare)
    Random().check(bare)


def test_unknown_methods_and_options_of_others_are_told():
    with pytest.raises(UserError, match=r"method must be one of random, .* got simlcr: did you mean simclr\?"):
        get_method("simlcr")
    with pytest.raises(UserError, match="simclr has no option labels: it is an option of clinical and shuffled"):
        make_method("simclr", {"labels": ("a",)})
    with pytest.raises(UserError, match=r"simclr has no option temprature: did you mean temperature\?"):
        make_method("simclr", {"temprature": 1.0})


def test_a_name_belongs_to_one_method():
    @dataclass(frozen=True)
    class Other(Method):
        name = "simclr"

    with pytest.raises(ValueError, match="Other must have another name than SimCLR, got simclr"):
        register_method(Other)
    with pytest.raises(TypeError, match="a method must be a subclass of Method with a name, got int"):
        register_method(int)
    assert get_method("simclr") is SimCLR


def test_no_code_outside_the_methods_decides_by_the_name_of_one():
    package = Path(mmcuda.__file__).parent
    names = set(registered_methods())
    found = []
    for path in package.rglob("*.py"):
        if path.parent.name == "methods":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            elif isinstance(node, ast.Dict):
                words = [key.value for key in node.keys if isinstance(key, ast.Constant)]
                words = words if len(names & set(words)) > 1 else []
            else:
                continue
            found += [f"{path.relative_to(package)}:{node.lineno}" for word in words if word in names]
    assert found == []


def test_another_package_adds_a_method_by_an_entry_point(monkeypatch):
    @dataclass(frozen=True)
    class Theirs(Method):
        name = "theirs"
        summary = "a method of another package"

    class Entry:
        def load(self):
            return Theirs

    monkeypatch.setattr(base, "_methods", dict(base._methods))
    monkeypatch.setattr(base, "entry_points", lambda group: [Entry()] if group == "mmcuda.methods" else [])
    base._load_entry_points.cache_clear()
    assert get_method("theirs") is Theirs
    base._load_entry_points.cache_clear()

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge

from mmcuda.errors import UserError
from mmcuda.targets import KINDS, Binary, Continuous, Multiclass, Ordinal, parse_targets, target_from_json

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(0, 1, (80, 6))
SIGNAL = FEATURES[:, 0] + 0.2 * RNG.normal(0, 1, 80)
TARGETS = {
    "binary": (Binary(), (SIGNAL > 0).astype(np.float32)),
    "multiclass": (Multiclass(("a", "b", "c")), np.digitize(SIGNAL, [-0.4, 0.4]).astype(np.float32)),
    "ordinal": (Ordinal(("1", "2", "3")), np.digitize(SIGNAL, [-0.4, 0.4]).astype(np.float32)),
    "continuous": (
        Continuous().fitted((300 + 50 * SIGNAL).astype(np.float32)),
        (300 + 50 * SIGNAL).astype(np.float32),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_columns_predictions_and_scores(kind):
    target, values = TARGETS[kind]
    weight, bias = target.fit(FEATURES, values, False)
    assert (weight.shape, bias.shape) == ((target.logits, 6), (target.logits,))
    logits = FEATURES @ weight.T + bias
    predictions = target.activate(logits)
    assert predictions.shape == (80, target.outputs) == (80, len(target.columns("x")))
    np.testing.assert_allclose(target.activate_tensor(torch.from_numpy(logits)).numpy(), predictions, atol=1e-12)
    if kind in ("multiclass", "ordinal"):
        np.testing.assert_allclose(predictions.sum(axis=1), 1)
        assert (predictions >= 0).all()
    scores = target.scores(predictions, values, np.ones((3, 80)))
    assert list(scores) == list(target.metrics)
    assert next(iter(scores.values()))[0] > 0.5
    assert target_from_json(target.as_json()) == target


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_descent_lowers_the_loss_of_a_kind(kind):
    target, values = TARGETS[kind]
    head = torch.nn.Linear(6, target.logits)
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    losses = []
    for _ in range(60):
        loss = target.loss(head(torch.from_numpy(FEATURES).float()), torch.from_numpy(values), None, 0.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    predictions = target.activate(head(torch.from_numpy(FEATURES).float()).detach().double().numpy())
    assert next(iter(target.scores(predictions, values, np.ones((1, 80))).values()))[0] > 0.5


def test_probes_are_those_of_scikit_learn():
    target, values = TARGETS["multiclass"]
    model = LogisticRegression(C=0.01, max_iter=1000).fit(FEATURES, values)
    weight, bias = target.fit(FEATURES, values, False)
    np.testing.assert_allclose(target.activate(FEATURES @ weight.T + bias), model.predict_proba(FEATURES))
    target, values = TARGETS["continuous"]
    weight, bias = target.fit(FEATURES, values, False)
    ridge = Ridge(alpha=100.0).fit(FEATURES, values)
    np.testing.assert_allclose(target.activate(FEATURES @ weight.T + bias)[:, 0], ridge.predict(FEATURES), rtol=1e-5)


def test_a_class_without_training_images_is_never_predicted():
    target = Multiclass(("a", "b", "c", "d"))
    for seen in ([0, 2], [0, 2, 3]):
        values = np.resize(seen, 80).astype(np.float32)
        weight, bias = target.fit(FEATURES, values, False)
        predictions = target.activate(FEATURES @ weight.T + bias)
        assert predictions[:, 1].max() < 1e-9
        model = LogisticRegression(C=0.01, max_iter=1000).fit(FEATURES, values)
        np.testing.assert_allclose(predictions[:, seen], model.predict_proba(FEATURES), atol=1e-9)


def test_losses_of_classes_are_cross_entropies():
    logits, values = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0.0, 2.0, 1.0, 1.0, 2.0])
    expected = F.cross_entropy(logits, values.long(), reduction="none")
    target = Multiclass(("a", "b", "c"))
    torch.testing.assert_close(target.loss(logits, values, None, 0.0), expected)
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(target.loss(logits, values, weights, 0.0), expected * weights[values.long()])
    focal = (1 - (-expected).exp()) ** 2 * expected
    torch.testing.assert_close(target.loss(logits, values, None, 2.0), focal)
    above = (values[:, None] > torch.arange(2)).double()
    expected = F.binary_cross_entropy_with_logits(logits[:, :2], above, reduction="none").mean(dim=1)
    torch.testing.assert_close(Ordinal(("a", "b", "c")).loss(logits[:, :2], values, None, 0.0), expected)


def test_ordinal_probabilities_are_differences_of_those_above():
    target = Ordinal(("0", "1", "2"))
    predictions = target.activate(np.array([[2.0, -2.0], [-2.0, -3.0], [2.0, 1.0], [-1.0, 3.0]]))
    assert target.decide(predictions).tolist() == [1, 0, 2, 0]
    np.testing.assert_allclose(predictions[3], [1 - 0.268941, 0, 0.268941], atol=1e-6)  # its logits contradict


def test_kinds_are_parsed_as_the_user_writes_them():
    spec = ("fluid", {"thickness": "continuous", "dx": "multiclass"}, {"grade": {"ordinal": ["mild", "severe"]}})
    assert parse_targets(spec) == {
        "fluid": None,
        "thickness": ("continuous", ()),
        "dx": ("multiclass", ()),
        "grade": ("ordinal", ("mild", "severe")),
    }
    assert parse_targets({"a": "binary"}) == {"a": ("binary", ())}
    assert parse_targets("fluid") == {"fluid": None}
    for wrong in ("continous", {"ordinal": "mild"}, {"within": 3}):
        with pytest.raises(
            UserError, match=r"--data.targets: x must be one of binary, multiclass, ordinal, continuous"
        ):
            parse_targets(({"x": wrong},))

"""The dense reference against the formula, written once more as loops, and against known values."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from mmcuda.labels import Equal, LabelSet, Within
from mmcuda.reference import supcon_losses


def losses_by_loops(z, samples, values, related, tau):
    """The loss of each anchor as the formula reads: sums over pairs, no broadcasting."""
    n = len(z)
    views = n // samples
    out = []
    for i in range(n):
        logits = {j: float(z[i] @ z[j]) / tau for j in range(n) if j != i}
        positives = [j for j in logits if j // views == i // views or related(values[i // views], values[j // views])]
        lse = math.log(sum(math.exp(s) for s in logits.values())) if logits else 0.0
        out.append(lse - sum(logits[j] for j in positives) / len(positives) if positives else 0.0)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_reference_equals_the_formula(views):
    samples = 7
    z = normalize(torch.randn(samples * views, 5, dtype=torch.float64), dim=-1)
    grade = [0, 1, 0, -1, 2, -1, 1]
    thickness = [250.0, 260.0, math.nan, 285.0, 250.0, 310.0, math.nan]
    same = losses_by_loops(z, samples, grade, lambda a, b: a == b and a != -1, 0.1)
    near = losses_by_loops(z, samples, thickness, lambda a, b: abs(a - b) <= 25, 0.1)

    sets = [LabelSet(torch.tensor(grade), Equal()), LabelSet(torch.tensor(thickness), Within(25.0))]
    got = supcon_losses(z, views, [s.positives() for s in sets], [1.0, 0.5], 0.1)
    torch.testing.assert_close(got, same + 0.5 * near)


def test_two_orthogonal_pairs():
    """Views identical, samples orthogonal, tau = 1: every anchor sees logits 1, 0, 0, so loss = log(e + 2) - 1."""
    z = torch.eye(2, dtype=torch.float64).repeat_interleave(2, 0)
    losses = supcon_losses(z, 2, [torch.eye(2)], [1.0], 1.0)
    torch.testing.assert_close(losses, torch.full((4,), math.log(math.e + 2) - 1, dtype=torch.float64))


def test_within_on_integers_counts_the_unit():
    positives = LabelSet(torch.tensor([20, 40, 41, -1]), Within(1)).positives()
    expected = torch.eye(4, dtype=torch.bool)
    expected[1, 2] = expected[2, 1] = True
    assert torch.equal(positives, expected)


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_within_refuses_a_senseless_tolerance(tolerance):
    with pytest.raises(ValueError, match=r"tolerance must be not negative and finite"):
        Within(tolerance)


def test_label_set_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"labels must be real and \[B\], got torch.int64 \[2, 1\]"):
        LabelSet(torch.zeros(2, 1, dtype=torch.long), Equal())
    with pytest.raises(ValueError, match=r"weight of labels must be not negative and finite, got -1"):
        LabelSet(torch.zeros(2), Equal(), weight=-1.0)

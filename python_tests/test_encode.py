"""What the kernels read says the same about every pair as what the reference reads."""

import math

import pytest
import torch

from mmcuda._native import extension
from mmcuda._native.encode import (
    GAUSSIAN,
    INTERVAL,
    LossInputs,
    dense_relations,
    encoded_relations,
    kernel_sort_values,
    relation_data,
)
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Within

pytestmark = pytest.mark.skipif(extension.native is None, reason=extension.missing_reason or "")

SAMPLES = 9
# anchors, keys (samples), views, anchor_offset (samples)
LAYOUTS = {"self": (9, None, 1, 0), "views": (9, None, 3, 0), "cross": (9, 5, 1, None), "slice": (4, 9, 2, 3)}


def inputs_of(layout, relation):
    """The relation is a mask or of attributes with missing values."""
    anchors, keys, views, offset = LAYOUTS[layout]
    x = torch.randn(anchors * views, 2)
    y = None if keys is None else torch.randn(keys * views, 2)
    attributes, mask = [], None
    if relation is None:
        mask = (torch.rand(9, keys or 9) < 0.5) * torch.rand(9, keys or 9)
        mask[4] = 0
    else:
        values = torch.tensor([250, -1, 262, 255, 250, 310, -1, 312, 250])
        if isinstance(relation, Overlap):
            values = torch.randint(-1, 2, (SAMPLES, 40))
        others = values.flip(0)[:keys] if offset is None else None
        attributes = [Attribute(values, relation, 0.5, keys=others)]
    return LossInputs(x, y, attributes, mask, views, None if offset is None else offset * views)


def relation_of_kernels(encoded, i, j):
    """r(i, j) of two items as a kernel computes it."""
    rank, first, last = encoded.intervals[0].tolist()
    near = first[i] <= rank[j] <= last[i]
    (words,), data = encoded.words, encoded.relation_data
    if words == INTERVAL:
        assert data is None
        return float(near)
    if words == GAUSSIAN:
        (u,) = data.view(1, -1).view(torch.float64)
        return 2 ** -((u[i] - u[j]).item() ** 2) if near else 0.0
    assert words == len(data)
    if near:
        return 1.0
    (ones, known), (other_ones, other_known) = (
        [[w & 0xFFFFFFFF for w in anchor] for anchor in data[:, :, k].T.tolist()] for k in (i, j)
    )
    both = sum((a & b).bit_count() for a, b in zip(ones, other_ones, strict=True))
    either = sum(((a | b) & c & d).bit_count() for a, b, c, d in zip(ones, other_ones, known, other_known, strict=True))
    comparable = any(a & b for a, b in zip(known, other_known, strict=True))
    return both / either if either else float(comparable)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("relation", [Equal(), Within(5.0), Rbf(4.0), Overlap()])
def test_attributes(relation, layout):
    inputs = inputs_of(layout, relation)
    encoded = encoded_relations(inputs)
    (dense,) = dense_relations(inputs)
    n, m = dense.shape
    first_column = 0 if inputs.keys is None else n
    decoded = [[relation_of_kernels(encoded, i, first_column + j) for j in range(m)] for i in range(n)]
    torch.testing.assert_close(torch.tensor(decoded, dtype=torch.float64), dense.double())
    assert encoded.weights == [0.5]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mask(layout):
    inputs = inputs_of(layout, None)
    encoded = encoded_relations(inputs)
    assert encoded.weights == [1.0]
    items = inputs.anchor_count + (0 if inputs.keys is None else inputs.keys.shape[0])
    assert encoded.intervals.shape == (0, 3, items)
    torch.testing.assert_close(encoded.mask, inputs.mask.to(inputs.anchors.dtype))


def test_sorted_values_hold_the_keys_behind_the_anchors():
    assert kernel_sort_values(Attribute(torch.tensor([1, -1]), Equal(), keys=torch.tensor([5]))).tolist() == [
        1,
        -1,
        5,
    ]
    values = kernel_sort_values(Attribute(torch.tensor([1, -1]), Within(2.0), keys=torch.tensor([5])))
    assert values.dtype == torch.float64
    assert values[[0, 2]].tolist() == [1, 5]
    assert values[1].isnan()
    cells = torch.zeros(2, 3)
    assert kernel_sort_values(Attribute(cells, Overlap(), keys=cells)).tolist() == [
        0,
        1,
        2,
        3,
    ]  # numbers of the samples
    assert relation_data(Attribute(torch.tensor([1, 2]), Equal())) is None


def test_data_of_rbf_are_exponents_of_2():
    values = torch.tensor([250.0, math.nan, 262.5, 240.0, 1e300], dtype=torch.float64)
    u = relation_data(Attribute(values[:3], Rbf(10.0), keys=values[3:]))
    assert u.dtype == torch.float64
    assert u.max() < 100  # gaps that no relation spans are closed
    known = [0, 2, 3]
    expected = Attribute(values, Rbf(10.0)).dense()[known][:, known]
    torch.testing.assert_close(torch.exp2(-(u[known][:, None] - u[known]).square()), expected)


@pytest.mark.parametrize("cells", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("compiled", [False, True])
def test_data_of_overlap_are_bits(cells, compiled):
    values = torch.randint(-1, 2, (5, cells))

    def data(values):
        return relation_data(Attribute(values[:3], Overlap(), keys=values[3:]))

    words = (torch.compile(data, fullgraph=True, backend="aot_eager") if compiled else data)(values)
    assert words.dtype == torch.int32
    assert words.shape == ((cells + 31) // 32, 2, 5)
    assert words.is_contiguous()
    for sample, anchor in enumerate(values.tolist()):
        for plane, wanted in enumerate((lambda cell: cell == 1, lambda cell: cell >= 0)):
            bits = [words[word, plane, sample].item() >> bit & 1 for word in range(len(words)) for bit in range(32)]
            assert bits == [int(wanted(cell)) for cell in anchor] + [0] * (len(bits) - cells)

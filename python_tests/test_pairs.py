"""What the kernels read says the same about every pair as what the reference reads."""

import pytest
import torch

from mmcuda import _extension
from mmcuda.labels import Equal, LabelSet, Overlap, Rbf, Within
from mmcuda.pairs import Pairs, dense_relations, encoded_relations

pytestmark = pytest.mark.skipif(_extension.native is None, reason=_extension.missing_reason or "")

SAMPLES = 9
# rows, columns (samples), views, self_offset (samples)
LAYOUTS = {"self": (9, None, 1, 0), "views": (9, None, 3, 0), "cross": (9, 5, 1, None), "slice": (4, 9, 2, 3)}


def pairs_of(layout, relation):
    """The relation is a mask or of label sets with missing values."""
    rows, columns, views, offset = LAYOUTS[layout]
    x = torch.randn(rows * views, 2)
    y = None if columns is None else torch.randn(columns * views, 2)
    label_sets, mask = [], None
    if relation is None:
        mask = (torch.rand(9, columns or 9) < 0.5) * torch.rand(9, columns or 9)
        mask[4] = 0
    else:
        values = torch.tensor([250, -1, 262, 255, 250, 310, -1, 312, 250])
        if isinstance(relation, Overlap):
            values = torch.randint(-1, 2, (SAMPLES, 40))
        others = values.flip(0)[:columns] if offset is None else None
        label_sets = [LabelSet(values, relation, 0.5, columns=others)]
    return Pairs(x, y, label_sets, mask, views, None if offset is None else offset * views)


def relation_of_kernels(encoded, i, j):
    """r(i, j) of two items as a kernel computes it."""
    rank, first, last = encoded.ranks[0].tolist()
    code = encoded.codes[0]
    near = first[i] <= rank[j] <= last[i]
    if code.numel() == 0:
        return float(near)
    if code.is_floating_point():
        return 2 ** -((code[i] - code[j]).item() ** 2) if near else 0.0
    if near:
        return 1.0
    (ones, known), (other_ones, other_known) = (
        [[w & 0xFFFFFFFF for w in row] for row in code[:, :, k].T.tolist()] for k in (i, j)
    )
    both = sum((a & b).bit_count() for a, b in zip(ones, other_ones, strict=True))
    either = sum(((a | b) & c & d).bit_count() for a, b, c, d in zip(ones, other_ones, known, other_known, strict=True))
    comparable = any(a & b for a, b in zip(known, other_known, strict=True))
    return both / either if either else float(comparable)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("relation", [Equal(), Within(5.0), Rbf(4.0), Overlap()])
def test_label_sets(relation, layout):
    pairs = pairs_of(layout, relation)
    encoded = encoded_relations(pairs)
    (dense,) = dense_relations(pairs)
    n, m = dense.shape
    first_column = 0 if pairs.columns is None else n
    decoded = [[relation_of_kernels(encoded, i, first_column + j) for j in range(m)] for i in range(n)]
    torch.testing.assert_close(torch.tensor(decoded, dtype=torch.float64), dense.double())
    assert encoded.weights == [0.5]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mask(layout):
    pairs = pairs_of(layout, None)
    encoded = encoded_relations(pairs)
    assert encoded.weights == [1.0]
    items = pairs.anchors + (0 if pairs.columns is None else pairs.columns.shape[0])
    assert encoded.ranks.shape == (0, 3, items)
    torch.testing.assert_close(encoded.mask, pairs.mask.to(pairs.rows.dtype))

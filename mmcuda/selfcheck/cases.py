"""The cases that `mmcuda selfcheck` runs, in groups.

Labels, relations, variants, sizes and reductions are combined so that each group meets all code that depends on them:
in each of the lists below the next one is taken, and the lists have no common period.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcuda.functional import cross_contrast_loss, pair_margin_loss, supcon_loss
from mmcuda.relations import Attribute, Equal, Overlap, Rbf, Relation, Within

VARIANTS = [  # positives, denominator
    ("outside", "all"),
    ("inside", "all"),
    ("outside", "negatives"),
    ("inside", "negatives"),
    ("outside", "one_positive"),
]
RELATIONS: dict[str, Sequence[Relation]] = {
    "equal": [Equal()],
    "within": [Within(10.0)],
    "rbf": [Rbf(8.0)],
    "overlap": [Overlap()],
    "several": [Equal(), Within(10.0), Rbf(8.0), Overlap()],
}
LARGE = "self, large logits"
REDUCTIONS = ["none", "mean", "none", "sum", "none"]


class Sizes(NamedTuple):
    """Numbers that no tile divides, and some D that tiles divide; the number of D has no factor 5, as VARIANTS has."""

    samples: int
    others: int
    dimensions: Sequence[int]


# D of 1, 2, 3 to 4, 5 to 8 and more panels of 128 bytes, for each of which there is a CUDA kernel of its own
FULL = Sizes(141, 301, (33, 64, 128, 200, 300, 24))
QUICK = Sizes(15, 41, (5, 24))


class Case(NamedTuple):
    """A loss function and its arguments, on the CPU; the features in float64."""

    function: Callable[..., Tensor]
    features: list[Tensor]
    options: dict[str, Any]
    has_temperature: bool = True


def attribute(relation: Relation, rows: int, columns: int | None) -> Attribute:
    """Return random labels, some of them missing."""

    def values(count: int) -> Tensor:
        if isinstance(relation, Overlap):
            return torch.randint(-1, 2, (count, 40))
        if isinstance(relation, Equal):
            return torch.randint(-1, 4, (count,))
        return (100 * torch.rand(count, dtype=torch.float64)).masked_fill(torch.rand(count) < 0.2, math.nan)

    return Attribute(values(rows), relation, 0.7, columns=None if columns is None else values(columns))


def positives(relation: str, rows: int, columns: int | None) -> dict[str, Any]:
    """Return the argument that relates the rows to each other, or to the columns."""
    if relation == "own":
        return {}
    if relation == "mask":
        mask = torch.rand(rows, columns or rows) * (torch.rand(rows, columns or rows) < 0.4)
        mask[::7] = 0  # rows without positives
        return {"mask": mask}
    return {"attributes": [attribute(one, rows, columns) for one in RELATIONS[relation]]}


def unit(*shape: int) -> Tensor:
    """Return random features, L2-normalised."""
    return normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def in_self(relation: str, n: int, m: int, d: int, norm: float = 1.0, **options: Any) -> Case:
    """Contrast two views of n samples."""
    return Case(supcon_loss, [norm * unit(n, 2, d)], options | positives(relation, n, None))


def in_cross(relation: str, n: int, m: int, d: int, **options: Any) -> Case:
    """Contrast n rows with m columns."""
    m = n if relation == "own" else m
    return Case(cross_contrast_loss, [unit(n, d), unit(m, d)], options | positives(relation, n, m))


def in_slice(relation: str, n: int, m: int, d: int, **options: Any) -> Case:
    """Contrast two views of n samples with two views of m samples, among which they are."""
    columns, first = unit(2 * m, d), 2 * (m - n - 1)
    options |= {"self_offset": first, "views": 2} | positives(relation, m, None)
    return Case(cross_contrast_loss, [columns[first : first + 2 * n].clone(), columns], options)


LAYOUTS: dict[str, Callable[..., Case]] = {
    "self": in_self,
    LARGE: partial(in_self, norm=4.0),
    "cross": in_cross,
    "both ways": partial(in_cross, both_ways=True),
    "rows among the columns": in_slice,
}


def groups(sizes: Sizes) -> Iterator[tuple[str, list[Case]]]:
    """Yield the name and the cases of each group."""
    n, m, dimensions = sizes
    features = itertools.cycle(dimensions)
    reductions = itertools.cycle(REDUCTIONS)
    for name, layout in LAYOUTS.items():
        cases = []
        for relation, (inside, denominator) in itertools.product([*RELATIONS, "mask", "own"], VARIANTS):
            options = {"positives": inside, "denominator": denominator, "reduction": next(reductions)}
            cases.append(layout(relation, n, m, next(features), **options))
        yield f"contrastive, {name}", cases
    margins = []
    for relation, d, crossed in itertools.product(RELATIONS, dimensions, (False, True)):
        options = positives(relation, n, m if crossed else None) | {"margin": 1.3, "reduction": next(reductions)}
        function = pair_margin_loss if crossed else partial(pair_margin_loss, columns=None)
        margins.append(Case(function, [unit(n, d), unit(m, d)][: 1 + crossed], options, has_temperature=False))
    yield "pair margin", margins

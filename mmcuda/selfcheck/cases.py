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
    ("out", "all"),
    ("in", "all"),
    ("out", "negatives"),
    ("in", "negatives"),
    ("out", "sincere"),
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


def attribute(relation: Relation, anchors: int, keys: int | None) -> Attribute:
    """Return random labels, some of them missing."""

    def values(count: int) -> Tensor:
        if isinstance(relation, Overlap):
            return torch.randint(-1, 2, (count, 40))
        if isinstance(relation, Equal):
            return torch.randint(-1, 4, (count,))
        return (100 * torch.rand(count, dtype=torch.float64)).masked_fill(torch.rand(count) < 0.2, math.nan)

    return Attribute(values(anchors), relation, 0.7, keys=None if keys is None else values(keys))


def positives(relation: str, anchors: int, keys: int | None) -> dict[str, Any]:
    """Return the argument that relates the anchors to each other, or to the keys."""
    if relation == "own":
        return {}
    if relation == "mask":
        mask = torch.rand(anchors, keys or anchors) * (torch.rand(anchors, keys or anchors) < 0.4)
        mask[::7] = 0  # anchors without positives
        return {"mask": mask}
    return {"attributes": [attribute(one, anchors, keys) for one in RELATIONS[relation]]}


def unit(*shape: int) -> Tensor:
    """Return random features, L2-normalised."""
    return normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def in_self(relation: str, n: int, m: int, d: int, norm: float = 1.0, **options: Any) -> Case:
    """Contrast two views of n samples."""
    return Case(supcon_loss, [norm * unit(n, 2, d)], options | positives(relation, n, None))


def in_cross(relation: str, n: int, m: int, d: int, **options: Any) -> Case:
    """Contrast n anchors with m keys."""
    m = n if relation == "own" else m
    return Case(cross_contrast_loss, [unit(n, d), unit(m, d)], options | positives(relation, n, m))


def in_slice(relation: str, n: int, m: int, d: int, **options: Any) -> Case:
    """Contrast two views of n samples with two views of m samples, among which they are."""
    keys, first = unit(2 * m, d), 2 * (m - n - 1)
    options |= {"anchor_offset": first, "views": 2} | positives(relation, m, None)
    return Case(cross_contrast_loss, [keys[first : first + 2 * n].clone(), keys], options)


LAYOUTS: dict[str, Callable[..., Case]] = {
    "self": in_self,
    LARGE: partial(in_self, norm=4.0),
    "cross": in_cross,
    "symmetric": partial(in_cross, symmetric=True),
    "anchors among the keys": in_slice,
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
        function = pair_margin_loss if crossed else partial(pair_margin_loss, keys=None)
        margins.append(Case(function, [unit(n, d), unit(m, d)][: 1 + crossed], options, has_temperature=False))
    yield "pair margin", margins

"""The loss family densely in NumPy, float64, as csrc/contrastive.h writes it, and labels for it."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Labels:
    """Of one set, over all items."""

    ranks: np.ndarray  # [3, L] int32
    values: np.ndarray | None = None  # [L] float64
    bits: np.ndarray | None = None  # [W, 2, L] int32
    relation: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [L, L]


def ranks_of(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Rank, begin and end of each value among the sorted."""
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), np.int32)
    rank[order] = np.arange(len(values))
    near = np.abs(values[:, None] - values[None]) <= tolerance
    begin = np.where(near, rank[None], len(values)).min(1)
    end = np.where(near, rank[None], -1).max(1)
    return np.stack([rank, begin, end]).astype(np.int32)


def make_labels(kind: str, items: int, samples: np.ndarray, rng: np.random.Generator) -> Labels:
    """Labels of items; items with the same sample share them."""
    count = samples.max() + 1
    classes = rng.integers(0, max(2, count // 4), count).astype(float)[samples]
    if kind == "interval":
        ranks = ranks_of(classes, 0)
    elif kind == "tolerance":
        ranks = ranks_of(rng.normal(size=count)[samples], 0.3)
    elif kind == "gaussian":
        values = rng.normal(size=count)[samples]
        ranks = ranks_of(values, 1.0)
        inside = (ranks[0][None] >= ranks[1][:, None]) & (ranks[0][None] <= ranks[2][:, None])
        gauss = 2.0 ** -((values[:, None] - values[None]) ** 2)
        return Labels(ranks, values=values, relation=inside * gauss)
    else:
        words = 2
        bits = rng.integers(0, 2**32, (words, 2, count), dtype=np.uint64).astype(np.uint32)
        bits[:, 0] &= rng.integers(0, 2**32, (words, count), dtype=np.uint64).astype(np.uint32)
        bits[:, 1, rng.random(count) < 0.1] = 0  # nothing is known
        bits[:, 0] &= bits[:, 1]
        bits = bits[..., samples]
        known = bits[:, 1, :, None] & bits[:, 1, None, :]
        both = np.bitwise_count(bits[:, 0, :, None] & bits[:, 0, None, :]).sum(0).astype(float)
        either = np.bitwise_count((bits[:, 0, :, None] | bits[:, 0, None, :]) & known).sum(0).astype(float)
        jaccard = np.where(either > 0, both / np.maximum(either, 1), known.any(0))
        ranks = ranks_of(samples.astype(float), 0)
        same = samples[:, None] == samples[None]
        return Labels(ranks, bits=np.ascontiguousarray(bits.view(np.int32)), relation=np.where(same, 1.0, jaccard))
    rank, begin, end = ranks
    return Labels(ranks, relation=((rank[None] >= begin[:, None]) & (rank[None] <= end[:, None])).astype(float))


def contrastive(x, y, allowed, relations, weights, case, grad, side):
    """Losses of the rows x, dL/d(x y^T), counts, and sums by set for the given incoming gradient."""
    dots = x @ y.T
    s = np.where(allowed, dots / case.temperature, -np.inf)
    masses = [r * allowed for r in relations]
    losses = np.zeros(len(x))
    g = np.zeros_like(dots)

    def log_sum(weight):
        top = np.where(weight > 0, s, -np.inf).max(1)
        top = np.where(np.isfinite(top), top, 0)
        e = weight * np.exp(np.where(weight > 0, s - top[:, None], -np.inf))
        total = e.sum(1)
        with np.errstate(divide="ignore"):
            return top + np.log(total), e / np.where(total == 0, 1, total)[:, None], total > 0

    for mass, weight in zip(masses, weights, strict=True):
        n = mass.sum(1)
        unrelated = allowed - mass
        active = n > 0
        if case.denominator == "negatives":
            active &= unrelated.sum(1) > 1e-6
        a = np.where(active, weight, 0.0)
        share = mass / np.where(n > 0, n, 1)[:, None]
        finite = np.where(allowed, s, 0)
        if case.denominator == "one_positive":
            log_e, p, some = log_sum(unrelated)
            z = np.where(some, log_e, -np.inf)[:, None] - finite
            losses += a * (share * np.logaddexp(0, z)).sum(1)
            sigmoid = share / (1 + np.exp(-np.clip(z, -700, 700))) * np.isfinite(z)
            g += (grad * a)[:, None] * (p * sigmoid.sum(1)[:, None] - sigmoid)
            continue
        log_d, p, _ = log_sum(allowed * 1.0 if case.denominator == "all" else unrelated)
        if case.positives == "outside":
            pull, q = (share * finite).sum(1), share
        else:
            log_n, q, _ = log_sum(mass)
            pull = log_n - np.log(np.where(n > 0, n, 1))
        with np.errstate(invalid="ignore"):
            losses += np.where(active, a * (log_d - pull), 0)
        g += (grad * a)[:, None] * (p - q)
    return losses, g / case.temperature, np.stack([m.sum(1) for m in masses])


def pair_margin(x, y, allowed, relations, weights, case, grad):
    """Losses of the rows and gradients of x and y."""
    difference = x[:, None] - y[None]
    square = (difference**2).sum(2)
    distance = np.sqrt(square)
    related = sum(w * r for w, r in zip(weights, relations, strict=True))
    gap = np.maximum(case.margin - distance, 0)
    pairs = np.maximum(allowed.sum(1), 1)
    unlike = sum(weights) - related
    losses = (allowed * (related * square + unlike * gap**2)).sum(1) / pairs
    push = gap / np.where(distance > 0, distance, 1) * (distance > 0)
    b = allowed * (related - unlike * push) * (2 * grad / pairs)[:, None]
    forces = b[..., None] * difference
    return losses, forces.sum(1), -forces.sum(0), np.stack([(r * allowed).sum(1) for r in relations])

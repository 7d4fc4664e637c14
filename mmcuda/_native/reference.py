"""The loss family in plain, dense PyTorch: what the kernels must equal. Written to be read, not to be fast.

Rows x_i (i < N) are anchors, columns y_j (j < M). In self-contrast the columns are the rows; in general the rows may be
a slice of the columns, row i being column i + ``self_offset``, and that pair is excluded. Over the pairs that remain,

    s_ij = x_i.y_j / tau        n_ki = sum_j r_k(i, j)        E_ki = sum_j (1 - r_k(i, j)) exp s_ij

with r_k >= 0 the relation of attribute k. An anchor's loss is sum_k w_k l_ki, where l_ki is

    positives outside, denominator all:           log sum_j exp s_ij - sum_j r s / n             (Khosla et al., L_out)
    positives inside,  denominator all:           log sum_j exp s_ij - log(sum_j r exp(s) / n)   (Khosla et al., L_in)
    positives outside, denominator negatives:     log E - sum_j r s / n                          (Yeh et al.)
    positives inside,  denominator negatives:     log E - log(sum_j r exp(s) / n)
    positives outside, denominator one_positive:  sum_p r / n [log(exp s_ip + E) - s_ip]         (Feeney & Hughes)

and 0 where the anchor has no positives (n = 0), or where the denominator is the negatives and it has none.

Sources: Khosla et al. 2020 (arXiv 2004.11362, equations 2 and 3); the sum over attributes of Kokilepersaud et al. 2023
(arXiv 2305.15154); Yeh et al. 2021 (decoupled, arXiv 2110.06848); Feeney & Hughes 2023 (SINCERE, arXiv 2309.14277).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def contrastive_losses(
    rows: Tensor,
    columns: Tensor,
    relations: Sequence[Tensor],
    weights: Sequence[float],
    temperature: float | Tensor,
    self_offset: int | None = None,
    positives: str = "outside",
    denominator: str = "all",
    both_ways: bool = False,
) -> Tensor:
    """Return the loss of every anchor, differentiable by autograd any number of times, in O(N M) memory.

    Args:
        rows: [N, D] anchors.
        columns: [M, D]; the rows themselves in self-contrast.
        relations: per attribute [N, M]: bool, or floating and not negative (at most 1 unless ``denominator="all"``).
        weights: per attribute its weight.
        temperature: tau > 0, a number or a tensor [], which gets a gradient.
        self_offset: row i is column i + self_offset; 0 in self-contrast; None: no row is a column.
        positives: "outside" the logarithm or "inside".
        denominator: "all" pairs, "negatives", or "one_positive" beside the negatives (positives outside only).
        both_ways: columns are anchors too, against the rows.

    Returns:
        [N] losses; with ``both_ways`` [N + M], the rows' first.
    """
    logits = rows @ columns.T / temperature
    allowed = allowed_pairs(logits, self_offset)
    masses = [relation.to(logits.dtype) * allowed for relation in relations]
    losses = _anchor_losses(logits, allowed, masses, weights, positives, denominator)
    if both_ways:
        masses = [mass.T for mass in masses]
        of_columns = _anchor_losses(logits.T, allowed.T, masses, weights, positives, denominator)
        losses = torch.cat([losses, of_columns])
    return losses


def _anchor_losses(
    logits: Tensor,  # [N, M]
    allowed: Tensor,  # [N, M] bool
    masses: Sequence[Tensor],  # per attribute [N, M]: r where allowed, else 0
    weights: Sequence[float],
    positives: str,
    denominator: str,
) -> Tensor:
    losses = torch.zeros_like(logits[:, 0])
    if denominator == "all":
        push, _ = log_sum(logits, allowed.to(logits.dtype))
    for mass, weight in zip(masses, weights, strict=True):
        total = mass.sum(dim=1)
        active = total > 0
        share = mass / total.where(active, 1)[:, None]  # r / n
        negative = (1 - mass) * allowed
        if denominator == "negatives":
            push, has_negatives = log_sum(logits, negative)
            active = active & has_negatives

        if denominator == "one_positive":
            log_negatives, has_negatives = log_sum(logits, negative)
            # log(exp s + E) - s = log(1 + exp(log E - s)) = -log sigmoid(s - log E)
            each = -logsigmoid(logits - log_negatives[:, None])
            loss = (share * each).sum(dim=1).where(has_negatives, 0)
        else:
            pull = (share * logits).sum(dim=1) if positives == "outside" else log_sum(logits, share)[0]
            loss = push - pull
        losses = losses + weight * loss.where(active, 0)
    return losses


def log_sum(logits: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return log sum_j f_ij exp s_ij, [N], and whether the sum has a term: where not, the logarithm is a finite filler.

    The filler, in place of -inf, keeps every derivative finite. ``factors`` [N, M] >= 0 get no gradient.
    """
    present = factors > 0
    not_empty = present.any(dim=1)
    terms = (logits + factors.where(present, 1).log()).masked_fill(~present, -torch.inf)
    return terms.where(not_empty[:, None], 0).logsumexp(dim=1), not_empty


def pair_margin_losses(
    rows: Tensor,
    columns: Tensor,
    relations: Sequence[Tensor],
    weights: Sequence[float],
    margin: float,
    self_offset: int | None = None,
) -> Tensor:
    """Return the pairwise margin loss of every row, differentiable once by autograd, in O(N M) memory.

    With d = ||x_i - y_j||, R = sum_k w_k r_k(i, j) and W = sum_k w_k, the loss of a pair is
    R d^2 + (W - R) max(0, margin - d)^2 and a row's loss its mean over the allowed pairs (0 if there are none). The
    gradient of d is 0 where two features coincide.

    Source: Hadsell et al. 2006 (CVPR, equation 4), without its halves.

    Args:
        rows: [N, D].
        columns: [M, D]; the rows themselves in self-contrast.
        relations: per attribute [N, M] in [0, 1].
        weights: per attribute its weight.
        margin: distance from which pairs that are not related stop repelling each other.
        self_offset: row i is column i + self_offset; 0 in self-contrast; None: no row is a column.

    Returns:
        [N] losses.
    """
    # By differences: ||x||^2 + ||y||^2 - 2 x.y would lose the digits of small distances.
    distance = torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")
    allowed = allowed_pairs(distance, self_offset)
    related = torch.zeros_like(distance)
    for relation, weight in zip(relations, weights, strict=True):
        related = related + weight * relation.to(distance.dtype)
    pairs = related * distance.square() + (sum(weights) - related) * (margin - distance).relu().square()
    return (pairs * allowed).sum(dim=1) / allowed.sum(dim=1).clamp_min(1)


def relation_totals(relations: Sequence[Tensor], self_offset: int | None = None, both_ways: bool = False) -> Tensor:
    """Return n_ki, [K, N] float64, of relations [N, M]; with ``both_ways`` [K, N + M], the rows' first."""
    masses = torch.stack([relation.double() for relation in relations])
    masses = masses * allowed_pairs(masses[0], self_offset)
    totals = masses.sum(dim=2)
    return torch.cat([totals, masses.sum(dim=1)], dim=1) if both_ways else totals


def allowed_pairs(like: Tensor, self_offset: int | None) -> Tensor:
    """Return [N, M] bool, false where row i and column j are the same; ``like`` is any [N, M]."""
    if self_offset is None:
        return torch.ones_like(like, dtype=torch.bool)
    row, column = (torch.arange(size, device=like.device) for size in like.shape)
    return row[:, None] + self_offset != column

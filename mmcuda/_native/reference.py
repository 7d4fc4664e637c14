"""The loss family in plain, dense PyTorch: what the kernels must equal. Written to be read, not to be fast.

Rows x_i (i < N) are anchors, keys y_j (j < M). In self-contrast the keys are the anchors; in general the anchors may be
a slice of the keys, anchor i being key i + ``anchor_offset``, and that pair is excluded. Over the pairs that remain,

    s_ij = x_i.y_j / tau        n_ki = sum_j r_k(i, j)        E_ki = sum_j (1 - r_k(i, j)) exp s_ij

with r_k >= 0 the relation of attribute k. An anchor's loss is sum_k w_k l_ki, where l_ki is

    positives outside, denominator all:           log sum_j exp s_ij - sum_j r s / n             (Khosla et al., L_out)
    positives inside,  denominator all:           log sum_j exp s_ij - log(sum_j r exp(s) / n)   (Khosla et al., L_in)
    positives outside, denominator negatives:     log E - sum_j r s / n                          (Yeh et al.)
    positives inside,  denominator negatives:     log E - log(sum_j r exp(s) / n)
    positives outside, denominator sincere:       sum_p r / n [log(exp s_ip + E) - s_ip]         (Feeney & Hughes)

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
    anchors: Tensor,
    keys: Tensor,
    relations: Sequence[Tensor],
    weights: Sequence[float],
    temperature: float | Tensor,
    anchor_offset: int | None = None,
    positives: str = "out",
    denominator: str = "all",
    symmetric: bool = False,
) -> Tensor:
    """Return the loss of every anchor, differentiable by autograd any number of times, in O(N M) memory.

    Args:
        anchors: [N, D].
        keys: [M, D]; the anchors themselves in self-contrast.
        relations: per attribute [N, M]: bool, or floating and not negative (at most 1 unless ``denominator="all"``).
        weights: per attribute its weight.
        temperature: tau > 0, a number or a tensor [], which gets a gradient.
        anchor_offset: anchor i is key i + anchor_offset; 0 in self-contrast; None: no anchor is a key.
        positives: outside the logarithm ("out") or inside ("in").
        denominator: "all" pairs, "negatives", or "sincere": the negatives and one positive (positives outside only).
        symmetric: each key is an anchor as well, against the anchors.

    Returns:
        [N] losses; with ``symmetric`` [N + M], the anchors' first.
    """
    logits = anchors @ keys.T / temperature
    allowed = allowed_pairs(logits, anchor_offset)
    relation_weights = [relation.to(logits.dtype) * allowed for relation in relations]
    losses = _anchor_losses(logits, allowed, relation_weights, weights, positives, denominator)
    if symmetric:
        relation_weights = [of_pairs.T for of_pairs in relation_weights]
        of_keys = _anchor_losses(logits.T, allowed.T, relation_weights, weights, positives, denominator)
        losses = torch.cat([losses, of_keys])
    return losses


def _anchor_losses(
    logits: Tensor,  # [N, M]
    allowed: Tensor,  # [N, M] bool
    relation_weights: Sequence[Tensor],  # per attribute [N, M]: r where allowed, else 0
    weights: Sequence[float],
    positives: str,
    denominator: str,
) -> Tensor:
    losses = torch.zeros_like(logits[:, 0])
    if denominator == "all":
        log_denominator, _ = log_sum(logits, allowed.to(logits.dtype))
    for of_pairs, weight in zip(relation_weights, weights, strict=True):
        total = of_pairs.sum(dim=1)
        active = total > 0
        p = of_pairs / total.where(active, 1)[:, None]  # r / n
        negative = (1 - of_pairs) * allowed
        if denominator == "negatives":
            log_denominator, has_negatives = log_sum(logits, negative)
            active = active & has_negatives

        if denominator == "sincere":
            log_negatives, has_negatives = log_sum(logits, negative)
            # log(exp s + E) - s = log(1 + exp(log E - s)) = -log sigmoid(s - log E)
            each = -logsigmoid(logits - log_negatives[:, None])
            loss = (p * each).sum(dim=1).where(has_negatives, 0)
        else:
            mean_positive_logit = (p * logits).sum(dim=1) if positives == "out" else log_sum(logits, p)[0]
            loss = log_denominator - mean_positive_logit
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
    anchors: Tensor,
    keys: Tensor,
    relations: Sequence[Tensor],
    weights: Sequence[float],
    margin: float,
    anchor_offset: int | None = None,
) -> Tensor:
    """Return the pairwise margin loss of every anchor, differentiable once by autograd, in O(N M) memory.

    With d = ||x_i - y_j||, R = sum_k w_k r_k(i, j) and W = sum_k w_k, the loss of a pair is
    R d^2 + (W - R) max(0, margin - d)^2 and an anchor's loss its mean over the allowed pairs (0 if there are none). The
    gradient of d is 0 where two features coincide.

    Source: Hadsell et al. 2006 (CVPR, equation 4), without its halves.

    Args:
        anchors: [N, D].
        keys: [M, D]; the anchors themselves in self-contrast.
        relations: per attribute [N, M] in [0, 1].
        weights: per attribute its weight.
        margin: distance from which pairs that are not related stop repelling each other.
        anchor_offset: anchor i is key i + anchor_offset; 0 in self-contrast; None: no anchor is a key.

    Returns:
        [N] losses.
    """
    # By differences: ||x||^2 + ||y||^2 - 2 x.y would lose the digits of small distances.
    distance = torch.cdist(anchors, keys, compute_mode="donot_use_mm_for_euclid_dist")
    allowed = allowed_pairs(distance, anchor_offset)
    related = torch.zeros_like(distance)
    for relation, weight in zip(relations, weights, strict=True):
        related = related + weight * relation.to(distance.dtype)
    pairs = related * distance.square() + (sum(weights) - related) * (margin - distance).relu().square()
    return (pairs * allowed).sum(dim=1) / allowed.sum(dim=1).clamp_min(1)


def count_positives(relations: Sequence[Tensor], anchor_offset: int | None = None, symmetric: bool = False) -> Tensor:
    """Return n_ki, [K, N] float64, of relations [N, M]; with ``symmetric`` [K, N + M], the anchors' first."""
    relation_weights = torch.stack([relation.double() for relation in relations])
    relation_weights = relation_weights * allowed_pairs(relation_weights[0], anchor_offset)
    positive_counts = relation_weights.sum(dim=2)
    return torch.cat([positive_counts, relation_weights.sum(dim=1)], dim=1) if symmetric else positive_counts


def allowed_pairs(like: Tensor, anchor_offset: int | None) -> Tensor:
    """Return [N, M] bool, false where anchor i and key j are the same; ``like`` is any [N, M]."""
    if anchor_offset is None:
        return torch.ones_like(like, dtype=torch.bool)
    anchor, key = (torch.arange(size, device=like.device) for size in like.shape)
    return anchor[:, None] + anchor_offset != key

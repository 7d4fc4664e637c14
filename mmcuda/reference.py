"""The loss family in plain, dense PyTorch: what the kernels must equal. Written to be read, not to be fast.

With z_i the feature of anchor i, s_ij = z_i.z_j / tau and P_k(i) the positives of i under label set k (i itself never),

    loss_i = sum_k w_k [P_k(i) not empty] ( lse_i - mean_{j in P_k(i)} s_ij ),    lse_i = log sum_{j != i} exp s_ij

which is the supervised contrastive loss of Khosla et al. (2020, arXiv 2004.11362, L_out), summed over label sets as in
Kokilepersaud et al. (2023, arXiv 2305.15154). An anchor without positives contributes 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def supcon_losses(
    features: Tensor, views: int, positives: Sequence[Tensor], weights: Sequence[float], temperature: float
) -> Tensor:
    """Return the loss of every anchor, differentiable by autograd, in O(N^2) memory.

    Args:
        features: [N, D] rows, N = B * views; the views of one sample are adjacent.
        views: views per sample.
        positives: per label set a dense relation [B, B]: bool, or non-negative weights of the positives.
        weights: per label set its weight.
        temperature: tau > 0.

    Returns:
        [N] losses.
    """
    n = len(features)
    not_self = ~torch.eye(n, dtype=torch.bool, device=features.device)
    logits = features @ features.T / temperature
    masked = logits.masked_fill(~not_self, -torch.inf)
    lse = masked.logsumexp(dim=1) if n > 1 else torch.zeros_like(features[:, 0])

    losses = torch.zeros_like(lse)
    for relation, weight in zip(positives, weights, strict=True):
        relation = relation.to(features.dtype).repeat_interleave(views, 0).repeat_interleave(views, 1) * not_self
        total = relation.sum(dim=1)
        has_positives = total > 0
        mean_logit = (relation * logits).sum(dim=1) / total.where(has_positives, 1)
        losses = losses + weight * (lse - mean_logit).where(has_positives, 0)
    return losses

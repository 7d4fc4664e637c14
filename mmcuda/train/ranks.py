"""A batch that is spread over several processes, seen as a whole by a loss that compares all its samples."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gather_ranks(tensor: Tensor) -> Tensor:
    """Concatenate every rank's rows, [b, ...] to [ranks * b, ...]; this rank's own rows keep their gradient.

    Every rank computes the whole loss and the gradient of its own rows. Distributed training then takes the mean of
    the ranks' gradients where their sum is the gradient of the whole batch, so each is scaled by the number of ranks.
    """
    if not dist.is_initialized():
        return tensor
    ranks = dist.get_world_size()
    shares = [torch.empty_like(tensor) for _ in range(ranks)]
    dist.all_gather(shares, tensor.detach().contiguous())
    if tensor.requires_grad:
        constant = tensor.detach()
        # The value of tensor, and ranks times its gradient.
        shares[dist.get_rank()] = constant + ranks * (tensor - constant)
    return torch.cat(shares)

"""Loss and gradients in float64, a chunk of rows at a time, on the device of the features.

Results of the kernels and of their peers are compared with these: N x N numbers fit no memory where N is large.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_BYTES = 5e8  # of one [chunk, N] matrix; some six of them live at a time

Exact = tuple[float, list[Tensor]]  # loss, and its gradient of each side


def chunks(rows: int, columns: int) -> Iterator[slice]:
    size = max(int(CHUNK_BYTES / (8 * columns)), 1)
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def supcon(features: Tensor, labels: Tensor, temperature: float) -> Exact:
    """The loss of Khosla et al. 2020, L_out, of features [B, V, D] and labels [B]: mean over all B V anchors."""
    x = features.detach().double().flatten(0, 1)  # [N, D]
    labels = labels.repeat_interleave(features.shape[1])
    n, loss, grad = len(x), 0.0, torch.zeros_like(x)
    for part in chunks(n, n):
        own = torch.arange(part.start, part.stop, device=x.device)
        logits = x[part] @ x.T / temperature  # [chunk, N]
        positives = (labels[part, None] == labels).double()
        diagonal = (torch.arange(len(own), device=x.device), own)
        logits[diagonal], positives[diagonal] = -torch.inf, 0
        count = positives.sum(1, keepdim=True)
        share = positives / count.clamp(min=1)
        lse = logits.logsumexp(1, keepdim=True)
        mean_positive = (share * logits.masked_fill(positives == 0, 0)).sum(1, keepdim=True)
        has_positives = count > 0  # the loss of other anchors is 0
        loss += ((lse - mean_positive) * has_positives).sum().item()
        # dL/dlogits = softmax - share
        forces = ((logits - lse).exp() - share) * has_positives / (n * temperature)
        grad[part] += forces @ x
        grad += forces.T @ x[part]
    return loss / n, [grad.view_as(features)]


def clip(x: Tensor, y: Tensor, temperature: float) -> Exact:
    """The symmetric loss of CLIP of x [N, D] and y [N, D]: mean cross entropy of rows and of columns."""
    x, y = x.detach().double(), y.detach().double()
    n = len(x)
    row_lse = x.new_empty(n)
    column_lse = x.new_full((n,), -torch.inf)
    for part in chunks(n, n):
        logits = x[part] @ y.T / temperature
        row_lse[part] = logits.logsumexp(1)
        column_lse = torch.logaddexp(column_lse, logits.logsumexp(0))
    diagonal = (x * y).sum(1) / temperature
    loss = ((row_lse + column_lse).sum() - 2 * diagonal.sum()).item() / (2 * n)
    grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
    for part in chunks(n, n):
        logits = x[part] @ y.T / temperature
        forces = (logits - row_lse[part, None]).exp() + (logits - column_lse).exp()
        forces[torch.arange(len(forces), device=x.device), torch.arange(part.start, part.stop, device=x.device)] -= 2
        forces /= 2 * n * temperature
        grad_x[part] = forces @ y
        grad_y += forces.T @ x[part]
    return loss, [grad_x, grad_y]


def errors(loss: Tensor, gradients: list[Tensor], exact: Exact) -> tuple[float, float]:
    """The error of the loss relative to it, and the norm of the gradients' error relative to their norm."""
    value, wanted = exact
    of_loss = abs(loss.double().item() - value) / abs(value)
    difference = sum((g.double() - w).square().sum() for g, w in zip(gradients, wanted, strict=True))
    size = sum(w.square().sum() for w in wanted)
    return of_loss, float((difference / size) ** 0.5)

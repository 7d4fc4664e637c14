"""What people use today, at its best: each takes features [B, V, D] and labels [B] and returns the mean loss."""

from collections.abc import Callable

import torch
from pytorch_metric_learning.losses import SupConLoss as MetricLearningSupConLoss
from torch import Tensor

from mmcuda import SupConLoss

TEMPERATURE = 0.07


def dense_eager(features: Tensor, labels: Tensor) -> Tensor:
    """SupContrast's formulation (Khosla et al. 2020) in dense PyTorch, written without needless N x N temporaries."""
    views = features.shape[1]
    rows = features.transpose(0, 1).flatten(0, 1)
    labels = labels.repeat(views)
    logits = rows @ rows.T / TEMPERATURE
    logits.fill_diagonal_(-torch.inf)
    positives = (labels[:, None] == labels).fill_diagonal_(False)
    mean_logit = logits.masked_fill(~positives, 0).sum(1) / positives.sum(1).clamp(min=1)
    return (logits.logsumexp(1) - mean_logit)[positives.any(1)].sum() / len(rows)


def metric_learning(features: Tensor, labels: Tensor) -> Tensor:
    """The loss of the package pytorch-metric-learning."""
    return MetricLearningSupConLoss(temperature=TEMPERATURE)(
        features.flatten(0, 1), labels.repeat_interleave(features.shape[1])
    )


def implementations() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return every implementation by name, ours first."""
    return {
        "mmcuda": SupConLoss(temperature=TEMPERATURE, base_temperature=TEMPERATURE, impl="fused"),
        "dense eager": dense_eager,
        "dense torch.compile": torch.compile(dense_eager),
        "pytorch-metric-learning": metric_learning,
    }

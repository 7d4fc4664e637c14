"""What sits on an encoder: the projection head of the contrastive loss, the linear classifier of the targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Map features [B, F] to L2-normalised projections [B, D] (Linear, BatchNorm, ReLU, Linear)."""

    def __init__(self, in_features: int, hidden: int, out_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out_features),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the projections of ``features``."""
        return F.normalize(self.layers(features).float(), dim=-1)


class ContrastiveModel(nn.Module):
    """Encoder and projection head: views [B, V, C, H, W] to L2-normalised projections [B, V, D]."""

    def __init__(self, encoder: nn.Module, hidden: int, out_features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = ProjectionHead(feature_size(encoder), hidden, out_features)

    def forward(self, views: Tensor) -> Tensor:
        """Return the projections of ``views``."""
        batch, count = views.shape[:2]
        projections: Tensor = self.head(self.encoder(views.flatten(0, 1)))
        return projections.view(batch, count, -1)


class Classifier(nn.Module):
    """Encoder and one linear layer: images [B, C, H, W] to logits [B, T] of T independent targets."""

    def __init__(self, encoder: nn.Module, targets: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.linear = nn.Linear(feature_size(encoder), targets)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images``."""
        logits: Tensor = self.linear(self.encoder(images))
        return logits


def masked_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over the labelled cells; 0 (with a zero gradient) if there are none.

    Args:
        logits: [B, T].
        targets: [B, T] in {0, 1, NaN}, NaN = no label.
    """
    labelled = targets.isfinite()
    # A NaN target would poison the gradient even where it is masked out of the sum: replace it first.
    losses = F.binary_cross_entropy_with_logits(logits, torch.where(labelled, targets, 0.0), reduction="none")
    return (losses * labelled).sum() / labelled.sum().clamp(min=1)


def feature_size(encoder: nn.Module) -> int:
    """Return the number of features that a timm encoder gives per image."""
    size = getattr(encoder, "head_hidden_size", None) or getattr(encoder, "num_features", None)
    if not isinstance(size, int):
        raise ValueError(f"encoder must be a timm model with num_features, got {type(encoder).__name__}")
    return size

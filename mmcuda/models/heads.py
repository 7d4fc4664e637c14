"""What sits on an encoder: the projection head of the contrastive loss, the linear classifier of the targets."""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from mmcuda.targets import Targets


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
    """Encoder, projection head and loss; called it maps views [B, V, C, H, W] to L2-normalised projections [B, V, D].

    The loss is a part of the model so that what it learns, such as a temperature, is learnt and saved with it.
    """

    def __init__(self, encoder: nn.Module, hidden: int, out_features: int, criterion: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = ProjectionHead(feature_size(encoder), hidden, out_features)
        self.criterion = criterion

    def forward(self, views: Tensor) -> Tensor:
        """Return the projections of ``views``."""
        batch, count = views.shape[:2]
        projections: Tensor = self.head(self.encoder(views.flatten(0, 1)))
        return projections.view(batch, count, -1)


class Classifier(nn.Module):
    """Encoder and one linear layer: images [B, C, H, W] to the logits [B, logits] of independent targets.

    Args:
        encoder: of timm.
        targets: by name, in the order of their logits.
        frozen: the encoder keeps its weights, and all of it stays in eval mode.
        keep_statistics: BatchNorm uses its running statistics in training, too, and keeps them.
    """

    def __init__(
        self, encoder: nn.Module, targets: Targets, frozen: bool = False, keep_statistics: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(not frozen)
        self.linear = nn.Linear(feature_size(encoder), sum(target.logits for target in targets.values()))
        self.targets, self.frozen, self.keep_statistics = dict(targets), frozen, keep_statistics

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images``."""
        logits: Tensor = self.linear(self.encoder(images))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for what is frozen or keeps its statistics."""
        super().train(mode)
        for module in self.encoder.modules():
            if self.frozen or (self.keep_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm)):
                module.training = False
        return self


def feature_size(encoder: nn.Module) -> int:
    """Return the number of features that a timm encoder gives per image."""
    size = getattr(encoder, "head_hidden_size", None) or getattr(encoder, "num_features", None)
    if not isinstance(size, int):
        raise ValueError(f"encoder must be a timm model with num_features, got {type(encoder).__name__}")
    return size

"""What contrastive methods share: a projection head, and projections of the batch of all ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmcuda.methods.base import Method
from mmcuda.train.batches import Batch
from mmcuda.train.ranks import gather_ranks


@dataclass(frozen=True)
class Contrastive(Method):
    """Views of every image are compared with those of all others, of all ranks."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the projections of ``batch``."""
        features = gather_ranks(model(batch.inputs["image"]).float())
        if not features.isfinite().all():
            return features.sum()  # not finite either: the training stops there and says so
        labels = {name: gather_ranks(label) for name, label in batch.labels.items()}
        parts: Any = getattr(model, "module", model)  # .module: of distributed training
        loss: Tensor = parts.criterion(features, labels or None)
        return loss

"""Early stopping: the epoch whose validation loss is lowest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn


@dataclass
class EarlyStopping:
    """When to stop, and which epoch to keep."""

    loss_of: Callable[[nn.Module], float]  # on the validation images
    patience: int  # epochs without a lower loss before the training ends
    losses: list[float] = field(default_factory=list)  # after 0, 1, ... epochs

    @property
    def best_epoch(self) -> int:
        """The number of epochs after which the loss was lowest, the first of equals."""
        return self.losses.index(min(self.losses))

    @property
    def improved(self) -> bool:
        """Whether the last epoch is the best so far."""
        return self.best_epoch == len(self.losses) - 1

    @property
    def over(self) -> bool:
        """Whether the patience is spent."""
        return len(self.losses) - 1 - self.best_epoch >= self.patience

    def table(self) -> str:
        """Return the losses as CSV."""
        rows = [f"{epoch},{loss:.8g}\n" for epoch, loss in enumerate(self.losses)]
        return "".join(["epoch,loss\n", *rows])

"""Batches of a training: gathered in a thread while the model computes the one before, then augmented."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmcuda.data.augment import Augment, Draws
from mmcuda.data.cohort import Cohort
from mmcuda.data.split import Indices
from mmcuda.train.sampler import Positions, class_aware_batches, shuffled_batches


class Batch(NamedTuple):
    """What the model and the loss get, on the device."""

    inputs: dict[str, Tensor]  # image: [B, V, C, H, W] floating, in 0..1
    labels: dict[str, Tensor]  # [B, ...] each


class Gathered(NamedTuple):
    """What makes a batch."""

    inputs: dict[str, Tensor]  # image: [B, V, C, H, W] uint8, or [B, 1, C, H, W] where all views are of one image
    labels: dict[str, Tensor]  # [B, ...] each
    draws: Draws

    def to(self, device: torch.device) -> Gathered:
        """Return the same on ``device``."""
        inputs, labels = (
            {name: part.to(device, non_blocking=True) for name, part in parts.items()}
            for parts in (self.inputs, self.labels)
        )
        return Gathered(inputs, labels, self.draws.to(device))

    def batch(self) -> Batch:
        """Make the views."""
        return Batch(self.inputs | {"image": self.draws.views(self.inputs["image"])}, self.labels)


@dataclass(frozen=True)
class TrainingSet:
    """The images of a cohort that one training uses, with their labels, and how they are shown.

    Raises:
        ValueError: if a label's length differs from the number of rows.
    """

    cohort: Cohort
    rows: Indices  # [n] its images
    labels: Mapping[str, Tensor]  # [n, ...] each
    augment: Augment
    views: int = 1  # of every image in a batch
    balance: Mapping[str, float] = field(default_factory=dict)  # labels that batches hold positives of: tolerances

    def __post_init__(self) -> None:
        for name, label in self.labels.items():
            if len(label) != len(self.rows):
                raise ValueError(f"labels[{name!r}] must have {len(self.rows)} rows, got {len(label)}")

    def __len__(self) -> int:
        return len(self.rows)

    def epoch(self, batch_size: int, seed: int) -> Iterable[Positions]:
        """Draw the batches of one epoch, each [B, V] positions in 0..n-1: the image of every view, here V times one."""
        labels = {name: (self.labels[name].numpy(), tolerance) for name, tolerance in self.balance.items()}
        batches: Iterable[Positions] = (
            class_aware_batches(labels, batch_size, seed) if labels else shuffled_batches(len(self), batch_size, seed)
        )
        return (np.repeat(batch[:, None], self.views, axis=1) for batch in batches)

    def batch(self, positions: Positions, generator: torch.Generator, device: torch.device) -> Batch:
        """Return the batch of the images at ``positions`` [B, V], in 0..n-1; its labels are those of the first view."""
        return self._gather(positions, generator).to(device).batch()

    def prefetch(self, plan: Iterator[tuple[Positions, torch.Generator]], device: torch.device) -> Generator[Gathered]:
        """Yield what makes a batch for each item of ``plan``, in order; a thread gathers the next one meanwhile.

        Views are not made in the thread: it would compete with the model for the cores.
        """

        def gather() -> Gathered | None:
            item = next(plan, None)
            return self._gather(*item) if item else None

        with ThreadPoolExecutor(max_workers=1) as worker:
            coming = worker.submit(gather)
            while (gathered := coming.result()) is not None:
                coming = worker.submit(gather)
                yield gathered.to(device)

    def _gather(self, positions: Positions, generator: torch.Generator) -> Gathered:
        first, same = positions[:, 0], (positions == positions[:, :1]).all()
        inputs = self.cohort.inputs(self.rows[first[:, None] if same else positions])  # one image is read once
        labels = {name: label[torch.from_numpy(first)] for name, label in self.labels.items()}
        return Gathered(inputs, labels, self.augment.draw(inputs["image"][:, 0].shape, positions.shape[1], generator))

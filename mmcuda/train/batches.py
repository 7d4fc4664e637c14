"""Batches of one epoch: drawn from a seed, gathered from the image array while the previous batch is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Positions = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Images [B, C, H, W] uint8 and labels, each [B, ...]."""

    images: Tensor
    labels: dict[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        labels = {name: label.to(device, non_blocking=True) for name, label in self.labels.items()}
        return Batch(self.images.to(device, non_blocking=True), labels)


@dataclass(frozen=True)
class TrainingSet:
    """The rows of an image array that one training uses, with their labels.

    Raises:
        ValueError: if a label's length differs from the number of rows.
    """

    images: npt.NDArray[np.uint8]  # [N, C, H, W], may be memory-mapped
    rows: Positions  # [n] indices into images
    labels: Mapping[str, Tensor]  # [n, ...] each

    def __post_init__(self) -> None:
        for name, label in self.labels.items():
            if len(label) != len(self.rows):
                raise ValueError(f"labels[{name!r}] must have {len(self.rows)} rows, got {len(label)}")

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: Positions) -> Batch:
        """Gather the images and labels at ``positions`` [B], each in 0..n-1."""
        chosen = torch.from_numpy(positions)
        images = torch.from_numpy(self.images[self.rows[positions]])
        return Batch(images, {name: label[chosen] for name, label in self.labels.items()})


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Return the number of full batches; a set smaller than a batch is one batch."""
    return max(samples // batch_size, 1)


def epoch_positions(samples: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> list[Positions]:
    """Return this rank's share of every batch of one epoch, in an order drawn from ``seed``.

    The incomplete last batch is dropped. All ranks draw the same order and take different samples of each batch.
    """
    order = np.random.default_rng(seed).permutation(samples)
    size = min(batch_size, samples) // ranks * ranks  # every rank gets equally many
    starts = range(0, size * steps_per_epoch(samples, size), size)
    return [order[start : start + size][rank::ranks] for start in starts]


def prefetch(data: TrainingSet, batches: list[Positions]) -> Iterator[Batch]:
    """Yield the batches in order; the next one is gathered in a thread meanwhile."""
    with ThreadPoolExecutor(max_workers=1) as gather:
        coming = gather.submit(data.batch, batches[0])
        for positions in batches[1:]:
            batch = coming.result()
            coming = gather.submit(data.batch, positions)
            yield batch
        yield coming.result()

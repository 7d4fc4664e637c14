"""Which images make up the batches of an epoch: any, or such that each finds positives of chosen clinical labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

GUESSES = 8  # at a partner, before all candidates are looked through


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Return the number of full batches; a set smaller than a batch is one batch."""
    return max(samples // batch_size, 1)


def shuffled_batches(samples: int, batch_size: int, seed: int) -> list[Positions]:
    """Return the batches of one epoch, [B] positions each, in an order drawn from ``seed``; the rest is dropped."""
    order = np.random.default_rng(seed).permutation(samples)
    size = min(batch_size, samples)
    return [order[start : start + size] for start in range(0, size * steps_per_epoch(samples, size), size)]


def class_aware_batches(labels: Mapping[str, tuple[Values, float]], batch_size: int, seed: int) -> Iterator[Positions]:
    """Yield as many batches as :func:`shuffled_batches`, in which images find positives of the chosen labels.

    A batch is made of groups: an image drawn at random and, for every label under which the batch holds no positive of
    it yet, a partner that is one. An image is shown once an epoch, except as the partner of one whose positives have
    all been shown. Images without a value, or whose value nobody shares, have no partner. Places too few for a group
    go to further positives of the images in the batch.

    So under a single label every image of a batch has a positive in it, if it has one at all; under several labels
    every image drawn has one under each, and every partner under the label it was drawn for.

    Args:
        labels: name -> values [n], NaN = missing, and the largest difference between two positives.
        batch_size: images in a batch.
        seed: the same seed gives the same batches.
    """
    generator = np.random.default_rng(seed)
    partners = [_Partners(values, tolerance, generator) for values, tolerance in labels.values()]
    samples = len(partners[0].values)
    size = min(batch_size, samples)
    shown = np.zeros(samples, np.bool_)
    order = iter(generator.permutation(samples).tolist())

    def show(position: int | None, batch: list[int]) -> int:
        """Put an image into the batch: the one given, or else the next that was not shown yet."""
        if position is None:
            position = next(other for other in order if not shown[other])
        shown[position] = True
        batch.append(position)
        return position

    for _ in range(steps_per_epoch(samples, size)):
        batch: list[int] = []
        while len(batch) + len(partners) < size:
            drawn = show(None, batch)
            for label in partners:
                if label.lacks(drawn, batch):
                    show(label.partner(drawn, batch, shown), batch)
        while len(batch) < size:
            members = generator.permutation(np.array(batch, np.int64)).tolist()
            further = (partners[0].partner(member, batch, shown) for member in members)
            show(next((position for position in further if position is not None), None), batch)
        yield np.array(batch, np.int64)


class _Partners:
    """The images ordered by one label, so that the positives of each are neighbours."""

    def __init__(self, values: Values, tolerance: float, generator: np.random.Generator) -> None:
        self.values, self.tolerance, self.generator = values, tolerance, generator
        self.order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]
        known = values[self.order]
        self.low = np.searchsorted(known, values - tolerance, "left")  # of the positives, among the ordered
        self.high = np.searchsorted(known, values + tolerance, "right")

    def lacks(self, drawn: int, batch: list[int]) -> bool:
        """Return whether the image ``drawn`` has positives, but none in the batch."""
        if self.high[drawn] - self.low[drawn] < 2:  # only itself, or no value
            return False
        near = abs(self.values[batch] - self.values[drawn]) <= self.tolerance
        return int(near.sum()) < 2  # itself

    def partner(self, drawn: int, batch: list[int], shown: npt.NDArray[np.bool_]) -> int | None:
        """Return a positive of the image ``drawn`` from outside the batch, one not shown yet if there is one."""
        low, high = int(self.low[drawn]), int(self.high[drawn])
        if low == high:
            return None
        for guess in self.generator.integers(low, high, GUESSES):
            if not shown[self.order[guess]]:
                return int(self.order[guess])
        candidates = self.order[low:high]
        fresh = candidates[~shown[candidates]]
        others = fresh if len(fresh) else np.setdiff1d(candidates, batch)
        return int(self.generator.choice(others)) if len(others) else None

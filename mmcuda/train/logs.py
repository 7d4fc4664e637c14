"""The log of a training: one row a step, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from torch.utils.tensorboard import SummaryWriter

from mmcuda.train.folder import write_text


class StepRow(NamedTuple):
    """What one step logs.

    data_wait is the fraction of the step spent waiting for its images, augmentation the fraction spent making views of
    them (on a GPU, starting to: it makes them while the step goes on).
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    images_per_second: float
    data_wait: float
    augmentation: float


class StepLog:
    """Append rows to the logs. Rows of epochs after ``finished_epochs`` are dropped first: they will be run again."""

    def __init__(self, table: Path, tensorboard: Path, finished_epochs: int, finished_steps: int) -> None:
        kept = [",".join(StepRow._fields)]
        if table.exists():
            with table.open(newline="") as file:
                kept += [",".join(row.values()) for row in csv.DictReader(file) if _is_kept(row, finished_epochs)]
        write_text(table, "\n".join(kept) + "\n")
        self._table = table.open("a", buffering=1)
        self._board = SummaryWriter(str(tensorboard), purge_step=finished_steps)

    def write(self, row: StepRow) -> None:
        """Append one row."""
        self._table.write(
            f"{row.step},{row.epoch},{row.loss:.8g},{row.learning_rate:.6g},"
            f"{row.images_per_second:.1f},{row.data_wait:.4f},{row.augmentation:.4f}\n"
        )
        for name in ("loss", "learning_rate", "images_per_second", "data_wait", "augmentation"):
            self._board.add_scalar(name, getattr(row, name), row.step)

    def __enter__(self) -> StepLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()
        self._board.close()


def _is_kept(row: dict[str, str], finished_epochs: int) -> bool:
    """Return whether a row is complete (a killed run may leave half of one) and of a finished epoch."""
    return None not in row.values() and int(row["epoch"]) <= finished_epochs

"""The one training loop: any loss, any device, mixed precision, logs, and checkpoints to resume from."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate import Accelerator
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from tqdm import tqdm

from mmcuda.errors import UserError
from mmcuda.models.description import ModelDescription
from mmcuda.models.storage import load_weights
from mmcuda.train.batches import Batch, Gathered, TrainingSet
from mmcuda.train.checkpoint import CONFIG, Checkpoint, load_checkpoint, recover, save_checkpoint
from mmcuda.train.config import Optimisation, Precision, PretrainJob
from mmcuda.train.config_file import check_same, load_config
from mmcuda.train.early_stopping import EarlyStopping
from mmcuda.train.finetune_config import FinetuneJob
from mmcuda.train.folder import RunFolder, write_text
from mmcuda.train.logs import StepLog, StepRow
from mmcuda.train.sampler import Positions, steps_per_epoch
from mmcuda.train.seeding import derive_seed

LossOfBatch = Callable[[nn.Module, Batch], Tensor]
AfterStep = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Training:
    """One training: its name in the run folder, its line on the screen, its options, and what its checkpoint says."""

    name: str  # of logs and checkpoint, such as clinical-seed0
    title: str  # on the screen, such as "pretrain  clinical"
    seed: int
    epochs: int
    options: Optimisation
    job: PretrainJob | FinetuneJob
    description: ModelDescription


def make_accelerator(precision: Precision) -> Accelerator:
    """Return the process's accelerator: its device, its ranks, its precision.

    Raises:
        UserError: if fp16 is asked for without a GPU.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("precision must be no or bf16 without a GPU, got fp16")
    return Accelerator(mixed_precision=precision)


class Trainer:
    """Trains a model, in place, from its last checkpoint (or from the start) to its last epoch.

    Everything random in an epoch derives from the seed and the epoch, so that a run that was killed and resumed ends
    with the same weights as one that was not.

    Args:
        accelerator: device, ranks and precision.
        folder: where logs and checkpoints go.
        training: names and options.
        model: trained in place.
        data: the training images and their labels.
        parameters: groups of parameters, each with its highest learning rate ``lr`` and its ``weight_decay``; by
            default all of the model, as the options say.
        early_stopping: when to stop before the last epoch; the model then has the best epoch's weights.

    Raises:
        UserError: if the batch size does not divide among the ranks.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: RunFolder,
        training: Training,
        model: nn.Module,
        data: TrainingSet,
        parameters: list[dict[str, Any]] | None = None,
        early_stopping: EarlyStopping | None = None,
    ) -> None:
        options, ranks = training.options, accelerator.num_processes
        if options.batch_size % ranks:
            raise UserError(f"batch_size must divide among {ranks} processes, got {options.batch_size}")
        self.accelerator, self.folder, self.training, self.data = accelerator, folder, training, data
        self.early_stopping = early_stopping
        self.steps = steps_per_epoch(len(data), options.batch_size)
        parameters = parameters or param_groups_weight_decay(model, options.weight_decay)
        optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate)
        steps = training.epochs * self.steps
        factor = warmup_cosine(round(options.warmup * steps), steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        self.model, self.optimizer = accelerator.prepare(model.to(memory_format=torch.channels_last), optimizer)

    def fit(self, loss_of_batch: LossOfBatch, after_step: AfterStep | None = None) -> None:
        """Train to the last epoch; a checkpoint is written at every epoch's end.

        Args:
            loss_of_batch: of the model, as distributed training may wrap it, and a batch.
            after_step: called with the model itself after every step of the optimiser.

        Raises:
            RuntimeError: if the loss is not finite.
        """
        epochs, finished = self.training.epochs, self._restore()
        self._after_step = after_step
        if finished is None:
            finished = 0
            self._end_epoch(finished)
        if finished < epochs and not self._is_over():
            self._run_epochs(finished, loss_of_batch)
        elif epochs > 0:
            self._say(f"{self.training.title}   finished before")
        if self.early_stopping:
            self._keep_best(self.early_stopping)
        self.accelerator.free_memory()

    def _run_epochs(self, finished: int, loss_of_batch: LossOfBatch) -> None:
        plan, device = self._plan(finished), self.accelerator.device
        with (
            self._log(finished) as log,
            self._progress(finished) as progress,
            closing(self.data.prefetch(plan, device)) as batches,
        ):
            for epoch in range(finished, self.training.epochs):
                rows = []
                for row in self._steps_of(epoch, batches, loss_of_batch):
                    rows.append(row)
                    if log:
                        log.write(row)
                    progress.set_description_str(progress_line(self.training, rows), refresh=False)
                    progress.update()
                self._end_epoch(epoch + 1)
                if self._is_over():
                    break
        if progress.disable:
            self._say(progress_line(self.training, rows))

    def _is_over(self) -> bool:
        return self.early_stopping is not None and self.early_stopping.over

    def _end_epoch(self, finished: int) -> None:
        """Validate and save. The best checkpoint comes first: killed in between, the epoch is run again."""
        stopping, name = self.early_stopping, self.training.name
        if stopping:
            loss = stopping.loss_of(self.accelerator.unwrap_model(self.model))
            mean = self.accelerator.reduce(torch.tensor(loss, device=self.accelerator.device), "mean")  # ranks agree
            stopping.losses.append(float(mean))
            if stopping.improved:
                self._save(self.folder.best_checkpoint(name), finished)
        self._save(self.folder.checkpoint(name), finished)
        if stopping and self.accelerator.is_main_process:
            write_text(self.folder.validation_log(name), stopping.table())

    def _keep_best(self, stopping: EarlyStopping) -> None:
        """Load the best epoch's weights."""
        self.accelerator.wait_for_everyone()
        place = self.folder.best_checkpoint(self.training.name)
        load_weights(self.accelerator.unwrap_model(self.model), load_checkpoint(place).weights, str(place))
        self._say(
            f"{self.training.title}   kept epoch {stopping.best_epoch} of {len(stopping.losses) - 1}  "
            f"validation loss {min(stopping.losses):.3f}"
        )

    def _say(self, line: str) -> None:
        if self.accelerator.is_main_process:
            print(line, flush=True)

    def _plan(self, finished: int) -> Iterator[tuple[Positions, torch.Generator]]:
        """Yield this rank's share of every batch still to come, with the generator of its views.

        All ranks draw the same batches and take different images of each.
        """
        seed, rank, ranks = self.training.seed, self.accelerator.process_index, self.accelerator.num_processes
        for epoch in range(finished, self.training.epochs):
            generator = torch.Generator().manual_seed(derive_seed(seed, "views", epoch, rank))
            for positions in self.data.epoch(self.training.options.batch_size, derive_seed(seed, "order", epoch)):
                equal = len(positions) // ranks * ranks  # every rank gets as many
                yield positions[:equal][rank::ranks], generator

    def _steps_of(self, epoch: int, batches: Iterator[Gathered], loss_of_batch: LossOfBatch) -> Iterator[StepRow]:
        """Take the steps of one epoch; yield what each logs."""
        ranks = self.accelerator.num_processes
        torch.manual_seed(derive_seed(self.training.seed, "dropout", epoch, self.accelerator.process_index))
        self.model.train()
        step = epoch * self.steps
        started = time.perf_counter()
        for gathered in islice(batches, self.steps):
            waited = time.perf_counter()
            batch = gathered.batch()
            augmented = time.perf_counter()
            learning_rate = float(max(self.schedule.get_last_lr()))
            step += 1
            loss = self._step(loss_of_batch(self.model, batch))
            if not math.isfinite(loss):
                raise RuntimeError(
                    f"the loss of {self.training.name} became {loss} in step {step} (epoch {epoch + 1}): "
                    "lower the learning rate or raise the temperature"
                )
            seconds = time.perf_counter() - started
            yield StepRow(
                step,
                epoch + 1,
                loss,
                learning_rate,
                images_per_second=len(batch.inputs["image"]) * ranks / seconds,
                data_wait=(waited - started) / seconds,
                augmentation=(augmented - waited) / seconds,
            )
            started = time.perf_counter()

    def _step(self, loss: Tensor) -> float:
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self._after_step:
            self._after_step(self.accelerator.unwrap_model(self.model))
        return float(loss.item())

    def _log(self, finished: int) -> AbstractContextManager[StepLog | None]:
        if not self.accelerator.is_main_process:
            return nullcontext()
        table, board = self.folder.log(self.training.name), self.folder.tensorboard(self.training.name)
        return StepLog(table, board, finished, finished * self.steps)

    def _progress(self, finished: int) -> tqdm[Any]:
        """Return a progress bar over all steps, silent where nobody watches a terminal."""
        return tqdm(
            total=self.training.epochs * self.steps,
            initial=finished * self.steps,
            file=sys.stdout,
            disable=not (self.accelerator.is_main_process and sys.stdout.isatty()),
            bar_format="{desc}  [{bar:20}] {elapsed}",
        )

    def _save(self, place: Path, finished: int) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "epoch": finished,
            "seed": self.training.seed,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "validation": self.early_stopping.losses if self.early_stopping else None,
        }
        weights = self.accelerator.unwrap_model(self.model).state_dict()
        save_checkpoint(place, Checkpoint(weights, state), self.training.job, self.training.description)

    def _restore(self) -> int | None:
        """Load the last checkpoint, if there is one, and return the number of finished epochs."""
        place = self.folder.checkpoint(self.training.name)
        if self.accelerator.is_main_process:
            recover(place)
            recover(self.folder.best_checkpoint(self.training.name))
        self.accelerator.wait_for_everyone()
        if not place.exists():
            return None
        check_same(place / CONFIG, load_config(type(self.training.job), place / CONFIG), self.training.job)
        checkpoint = load_checkpoint(place)
        load_weights(self.accelerator.unwrap_model(self.model), checkpoint.weights, str(place))
        self.optimizer.load_state_dict(checkpoint.state["optimizer"])
        self.schedule.load_state_dict(checkpoint.state["schedule"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
        if self.early_stopping:
            self.early_stopping.losses = checkpoint.state["validation"]
        finished: int = checkpoint.state["epoch"]
        return finished


def warmup_cosine(warmup_steps: int, steps: int) -> Callable[[int], float]:
    """Return the learning rate's factor at each step: linear from near 0 to 1, then a half cosine to 0."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))

    return factor


def progress_line(training: Training, rows: Sequence[StepRow]) -> str:
    """Return the line on the screen after the steps ``rows`` of one epoch: means over these steps."""
    loss, speed = fmean(row.loss for row in rows), fmean(row.images_per_second for row in rows)
    wait = 100 * fmean(row.data_wait for row in rows)
    epoch = f"epoch {rows[-1].epoch}/{training.epochs}"
    return f"{training.title}   {epoch}  loss {loss:.3f}  {speed:.0f} img/s  data wait {wait:.1f} %"

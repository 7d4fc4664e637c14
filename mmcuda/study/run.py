"""A whole study in one folder: every cell, then tables and report. Killed at any moment, it continues."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mmcuda.data.check.summary import summarise_table
from mmcuda.errors import Unfinished, UserError
from mmcuda.evaluate.features import extract_features, to_device
from mmcuda.models.encoder import check_encoder
from mmcuda.models.storage import load_encoder
from mmcuda.report.run import read_results
from mmcuda.report.write import findings, write_report
from mmcuda.study.arms import parse_arm, subject_of
from mmcuda.study.cells import CELLS, Cell, CellScores, Task, all_cells, missing_cells, name_tasks
from mmcuda.study.config import MAY_GROW, StudyConfig
from mmcuda.study.processes import do_in_processes
from mmcuda.study.results import Scores, all_tables, mean_predictions, result_table
from mmcuda.study.screen import cell_line, difference_table
from mmcuda.study.work import FAILED, CellReport, Worker
from mmcuda.train.cohorts import describe_rows, load_split_cohort
from mmcuda.train.config_file import open_folder
from mmcuda.train.folder import write_arrays, write_json, write_text
from mmcuda.train.loop import make_accelerator
from mmcuda.train.result_files import write_predictions, write_tables
from mmcuda.train.screen import LABEL, data_lines, probe_table
from mmcuda.train.summary import choose_samples, describe_environment


class StudyRun:
    """One `mmcuda train` or `mmcuda study`: what its stages share."""

    def __init__(self, config: StudyConfig, out: Path, resume: bool, command: str) -> None:
        self.command = command
        self.accelerator = make_accelerator(config.pretrain.precision)
        encoder = config.encoder
        check_encoder(encoder.name, encoder.pretrained, config.data.image_size, encoder.weights)
        self.cohort = load_split_cohort(config.data)
        self.config = config.with_labels(list(self.cohort.clinical))
        self.cells = all_cells(self.config)
        if self.accelerator.num_processes > 1:
            check_ranks(self.config)
        self.folder = open_folder(out, config, resume, self.accelerator, MAY_GROW)  # last: a refused run leaves none
        self.root = self.folder.root
        self.seconds = 0.0  # over all continuations
        environment = self.root / "environment.json"
        if environment.exists():
            earlier = json.loads(environment.read_text())
            self.command, self.seconds = earlier["command"], earlier["seconds"]["cells"]

    def run(self) -> None:
        """Compute the cells that are not there yet; print and write the results.

        Several ranks pretrain together; the first one alone scores and reports.

        Raises:
            Unfinished: at the end, if cells failed.
        """
        tasks = name_tasks(self.config, missing_cells(self.config, self.root))
        self.accelerator.wait_for_everyone()  # before the first rank writes a cell
        main = self.accelerator.is_main_process
        if main:
            self._write_cohort()
        worker = Worker(self.config, self.folder, self.accelerator, self.cohort)
        if self.accelerator.num_processes > 1:
            for task in tasks.values():
                worker.pretrain(task)
        if not main:
            return
        failed = self._compute(worker, tasks)
        self._write_results()
        if failed:
            more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise Unfinished(
                f"{len(failed)} of {len(self.cells)} cells failed: {failed[0]}{more}. "
                f"Tracebacks are in {self.root / FAILED}; --resume tries these cells again."
            )

    def _write_cohort(self) -> None:
        summary = summarise_table(self.cohort.table, self.cohort.split, self.config.pretrain.batch_size)
        print(data_lines(summary, self.config.pretrain.batch_size), flush=True)
        write_json(self.root / "cohort.json", summary)
        write_arrays(self.root / "samples.npz", choose_samples(self.cohort))
        self._write_environment(self.seconds)

    def _write_environment(self, seconds: float) -> None:
        environment = describe_environment(self.command, self.accelerator.device, {"cells": seconds})
        write_json(self.root / "environment.json", environment)

    def _compute(self, worker: Worker, tasks: dict[str, Task]) -> list[Cell]:
        """Compute the missing cells; return those that failed."""
        missing = sum(len(task.cells) for task in tasks.values())
        done, failed, started = len(self.cells) - missing, [], time.perf_counter()
        if done:
            print(f"{'study':<{LABEL}}{done} of {len(self.cells)} cells finished before", flush=True)
        shutil.rmtree(self.root / FAILED, ignore_errors=True)
        for number, report in enumerate(self._reports(worker, tasks), start=1):
            passed = time.perf_counter() - started
            left = passed / number * (missing - number)
            print(cell_line(report, done + number, len(self.cells), left), flush=True)
            if report.error:
                failed.append(report.cell)
            self._write_environment(self.seconds + passed)
        return failed

    def _reports(self, worker: Worker, tasks: dict[str, Task]) -> Iterator[CellReport]:
        """Do the tasks, here or in processes of their own; yield a report a cell."""
        if self.config.processes > 1:
            threads = max(1, torch.get_num_threads() // self.config.processes)
            yield from do_in_processes(self.root, tasks, self.config.processes, threads)
        else:
            for task in tasks.values():
                yield from worker.do(task)

    def _write_results(self) -> None:
        """Write and print tables and report of all cells that are there."""
        files = {cell: cell.file(self.root / CELLS) for cell in self.cells}
        scores = {cell: CellScores.read(file) for cell, file in files.items() if file.exists()}
        if not scores:
            return
        tables = all_tables(scores)
        write_text(
            self.root / "results.csv", result_table(self.config, scores).to_csv(index=False, lineterminator="\n")
        )
        write_predictions(self.root, self.cohort, mean_predictions(scores))
        self._write_embedding(scores)
        write_tables(self.root, tables)
        missing = [str(cell) for cell in self.cells if cell not in scores]
        print(probe_table(tables.metrics))
        for results in read_results(self.root).values():
            if results.baseline:
                print(difference_table(results))
        print(*findings(self.root), sep="\n")
        print(f"{'report':<{LABEL}}{write_report(self.root, missing)}", flush=True)

    def _write_embedding(self, scores: Scores) -> None:
        """Write the test images' features by the encoder that the report is about, with its name.

        An arm that trains from scratch keeps no encoder: then it is the next one's, and none if there is no other.
        """
        path, rows = self.root / "embedding.npz", self.cohort.test
        seeds = {cell.arm: cell.seed for cell in reversed(list(scores))}  # the first seed of each
        arms = [arm for arm in map(parse_arm, self.config.arms) if arm.name in seeds and arm.encoder(0)]
        if not arms:
            path.unlink(missing_ok=True)
            return
        arm = subject_of(arms, self.config.baseline)
        seed = seeds[arm.name]
        name = str(arm.encoder(seed))
        encoder = to_device(load_encoder(self.folder.checkpoint(name)), self.accelerator.device)
        features = extract_features(encoder, self.cohort.images, rows)
        whose = {"arm": np.array(arm.name), "seed": np.array(seed), "encoder": np.array(name)}
        write_arrays(path, describe_rows(self.cohort, rows) | whose | {"features": features})


def check_ranks(config: StudyConfig) -> None:
    """Raise a UserError unless the ranks of torchrun or accelerate can do a study: pretrain together, probe on one."""
    if config.processes > 1:
        raise UserError("processes must be 1 under torchrun, whose ranks pretrain together: give one of the two")
    for arm in map(parse_arm, config.arms):
        if arm.readout.trains:
            raise UserError(
                f"the arm {arm.name} trains a classifier, which the ranks of torchrun do not share in a study: leave "
                "it out, or start without torchrun and with --processes"
            )

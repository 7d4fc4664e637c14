"""A whole study in one folder: every cell, then tables and report. Killed at any moment, it continues."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mmcuda.data.check.summary import summarise_table
from mmcuda.errors import Unfinished, UserError
from mmcuda.models.encoder import check_encoder
from mmcuda.report.study import Study, study_findings, write_study_report
from mmcuda.study.arms import parse_arm
from mmcuda.study.cells import CELLS, Cell, CellScores, Task, all_cells, make_tasks
from mmcuda.study.config import MAY_GROW, StudyConfig
from mmcuda.study.pool import ProcessDied, in_processes
from mmcuda.study.results import cell_table, result_table
from mmcuda.study.screen import cell_line, difference_table
from mmcuda.study.work import FAILED, Report, begin
from mmcuda.train.folder import write_arrays, write_json, write_text
from mmcuda.train.loop import make_accelerator
from mmcuda.train.run import load_split_cohort, open_folder
from mmcuda.train.screen import LABEL, data_lines, probe_table
from mmcuda.train.summary import choose_samples, describe_environment


class StudyRun:
    """One `mmcuda study`: what its stages share."""

    def __init__(self, config: StudyConfig, out: Path, resume: bool, command: str) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("a study starts its processes itself: give --processes instead of using torchrun")
        self.command = command
        accelerator = make_accelerator(config.pretrain.precision)
        self.device = accelerator.device
        encoder = config.encoder
        check_encoder(encoder.name, encoder.pretrained, config.data.image_size, encoder.weights)
        self.cohort, self.split = load_split_cohort(config.data)
        self.config = config.with_labels(list(self.cohort.clinical))
        self.cells = all_cells(self.config)
        self.folder = open_folder(out, config, resume, accelerator, MAY_GROW)  # last: a refused study leaves no folder
        self.root = self.folder.root
        self.seconds = 0.0  # over all continuations
        environment = self.root / "environment.json"
        if environment.exists():
            earlier = json.loads(environment.read_text())
            self.command, self.seconds = earlier["command"], earlier["seconds"]["study"]

    def run(self) -> None:
        """Compute the cells that are not there yet; print and write the results.

        Raises:
            Unfinished: at the end, if cells failed.
        """
        summary = summarise_table(self.cohort.table, self.split, self.config.pretrain.batch_size)
        print(data_lines(summary, self.config.pretrain.batch_size), flush=True)
        write_json(self.root / "cohort.json", summary)
        write_arrays(self.root / "samples.npz", choose_samples(self.cohort, self.split))
        failed = self._compute()
        self._write_results()
        if failed:
            more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise Unfinished(
                f"{len(failed)} of {len(self.cells)} cells failed: {failed[0]}{more}. "
                f"Tracebacks are in {self.root / FAILED}; --resume tries these cells again."
            )

    def _compute(self) -> list[Cell]:
        """Compute the missing cells; return those that failed."""
        missing = [cell for cell in self.cells if not cell.file(self.root / CELLS).exists()]
        done, failed, started = len(self.cells) - len(missing), [], time.perf_counter()
        before = self.seconds
        if done:
            print(f"{'study':<{LABEL}}{done} of {len(self.cells)} cells finished before", flush=True)
        shutil.rmtree(self.root / FAILED, ignore_errors=True)
        for number, report in enumerate(self._reports(make_tasks(self.config, missing)), start=1):
            passed = time.perf_counter() - started
            left = passed / number * (len(missing) - number)
            print(cell_line(report, done + number, len(self.cells), left), flush=True)
            if report.error:
                failed.append(report.cell)
            self.seconds = before + passed
            write_json(
                self.root / "environment.json", describe_environment(self.command, self.device, {"study": self.seconds})
            )
        return failed

    def _reports(self, tasks: list[Task]) -> Iterator[Report]:
        """Do the tasks, here or in processes of their own; yield a report a cell."""
        work = partial(begin, self.config, self.root)
        if self.config.processes == 1:
            do = work()
            for task in tasks:
                yield from do(task)
            return
        threads = max(1, torch.get_num_threads() // self.config.processes)
        reported: set[Cell] = set()
        for task, result in in_processes(work, tasks, self.config.processes, threads):
            if isinstance(result, ProcessDied):
                for cell in task.cells:
                    if cell not in reported:
                        yield Report(cell, 0.0, error=str(result))
            else:
                reported.add(result.cell)
                yield result

    def _write_results(self) -> None:
        """Write and print tables and report of all cells that are there."""
        files = {cell: cell.file(self.root / CELLS) for cell in self.cells}
        scores = {cell: CellScores.read(file) for cell, file in files.items() if file.exists()}
        if not scores:
            return
        cells, table = cell_table(scores), result_table(self.config, scores)
        for name, rows in (("cells", cells), ("results", table)):
            write_text(self.root / f"{name}.csv", rows.to_csv(index=False, lineterminator="\n"))
        study = Study(
            table=table,
            metrics=cells.rename(columns={"arm": "pretraining"}),
            arms={arm: parse_arm(arm).meaning for arm in self.config.arms},
            baseline=self.config.baseline,
            missing=[str(cell) for cell in self.cells if cell not in scores],
        )
        print(probe_table([{**row, "pretraining": row["arm"]} for cell in scores.values() for row in cell.rows]))
        print(difference_table(study))
        print(*study_findings(study, len(np.unique(self.cohort.patients[self.split.train]))), sep="\n")
        print(f"{'report':<{LABEL}}{write_study_report(study, self.root)}", flush=True)

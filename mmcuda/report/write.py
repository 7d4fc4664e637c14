"""The report of a run: one HTML page, its figures, and a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from mmcuda.report.figures import STYLE, Picture
from mmcuda.report.figures_data import draw_embedding, draw_samples, draw_training
from mmcuda.report.figures_pairs import draw_differences
from mmcuda.report.figures_results import draw_label_efficiency, draw_target_curves
from mmcuda.report.html import render
from mmcuda.report.run import Run, read_cohort, read_results, read_run
from mmcuda.report.wording import finding_details, headline


def _scored_targets(run: Run) -> list[int]:
    """Return the indices of the targets that have both classes among the test images."""
    columns = enumerate(run.predictions.names)
    return [
        index
        for index, name in columns
        if name not in run.cohort.single_class_targets
        and {0.0, 1.0} <= set(np.unique(run.predictions.targets[:, index]).tolist())
    ]


def _draw(run: Run, scored: list[int], plots: Path) -> list[Picture]:
    """Draw every figure that the run has data for."""
    results, names = run.results, [run.predictions.names[index] for index in scored]
    pictures = [draw_label_efficiency(results, names, plots), draw_samples(run.samples, plots)]
    if len(results.differences()):
        pictures.append(draw_differences(results.differences(), str(results.baseline), plots))
    if scored and run.predictions.probabilities:
        pictures += draw_target_curves(run.predictions, scored, results, plots)
    if run.embedding is not None:
        pictures.append(draw_embedding(run.embedding, run.cohort, plots))
    if run.logs:
        pictures.append(draw_training(run.logs, plots))
    return pictures


def findings(run_dir: Path) -> list[str]:
    """Return what a run found, a sentence each: the headline of its report first.

    Raises:
        UserError: if a file of the run folder is missing or malformed; the message names it.
    """
    results, cohort = read_results(run_dir), read_cohort(run_dir / "cohort.json")
    return [headline(results), *finding_details(results, cohort.train.patients)]


def write_report(run_dir: Path, missing: Sequence[str] = ()) -> Path:
    """Write plots/*.png, report.html and README.md (the model card) into a run folder.

    Args:
        run_dir: a folder written by ``mmcuda train`` or ``mmcuda study``; nothing outside it is read.
        missing: cells that are not there, in words.

    Returns:
        The path of report.html: one file that opens offline.

    Raises:
        UserError: if a file of the run folder is missing or malformed; the message names it.

    Example:
        >>> write_report(Path("runs/demo"))  # doctest: +SKIP
        PosixPath('runs/demo/report.html')
    """
    run = read_run(run_dir)
    scored = _scored_targets(run)
    plots = run_dir / "plots"
    plots.mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        pictures = {picture.name: picture for picture in _draw(run, scored, plots)}
    report, card = render(run, [run.predictions.names[index] for index in scored], pictures, missing)
    path = run_dir / "report.html"
    path.write_text(report, encoding="utf-8")
    (run_dir / "README.md").write_text(card, encoding="utf-8")
    return path

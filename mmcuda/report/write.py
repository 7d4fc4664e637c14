"""The report of a run: one HTML page, its figures, and a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from mmcuda.report.figures import STYLE, Picture
from mmcuda.report.figures_data import draw_embedding, draw_samples, draw_training
from mmcuda.report.figures_kinds import draw_kind
from mmcuda.report.figures_pairs import draw_differences
from mmcuda.report.figures_results import draw_label_efficiency, draw_target_curves
from mmcuda.report.html import render
from mmcuda.report.run import Run, read_cohort, read_results, read_run
from mmcuda.report.wording import finding_details, headline
from mmcuda.targets import by_kind


def _scored_targets(run: Run) -> dict[str, list[str]]:
    """Return by kind the names of the targets whose labels differ among the training and the test images."""
    return {
        kind: [
            name
            for name in names
            if name not in run.cohort.single_class_targets
            and run.predictions.kinds[name].can_learn(run.predictions.targets[:, run.predictions.names.index(name)])
        ]
        for kind, names in by_kind(run.predictions.kinds).items()
    }


def _draw(run: Run, scored: dict[str, list[str]], plots: Path) -> list[Picture]:
    """Draw every figure that the run has data for."""
    pictures = [draw_samples(run.samples, plots)]
    for kind, results in run.kinds.items():
        pictures.append(draw_label_efficiency(results, scored[kind], plots))
        if len(results.differences()):
            pictures.append(draw_differences(results, plots))
        shown = [
            name for name in scored[kind] if run.predictions.of(name, results.subject, results.headline_fraction)[1]
        ]
        if kind == "binary" and scored[kind] and run.predictions.predictions:
            pictures += draw_target_curves(run.predictions, scored[kind], results, plots)
        elif kind != "binary" and shown:
            pictures.append(draw_kind(run.predictions, shown, results, plots))
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
    results, cohort = next(iter(read_results(run_dir).values())), read_cohort(run_dir / "cohort.json")
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
    report, card = render(run, scored, pictures, missing)
    path = run_dir / "report.html"
    path.write_text(report, encoding="utf-8")
    (run_dir / "README.md").write_text(card, encoding="utf-8")
    return path

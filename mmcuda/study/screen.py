"""What a study prints: a line a cell, then its tables."""

from __future__ import annotations

from mmcuda.report.results import Results
from mmcuda.report.wording import DASH, decimal, difference_text, duration, needed_text, percent
from mmcuda.study.work import CellReport
from mmcuda.train.screen import LABEL


def cell_line(report: CellReport, done: int, cells: int, left: float) -> str:
    """Return the line about a finished cell; ``left`` is the time, in seconds, that the others will take."""
    count = f"{done}/{cells}"
    if report.error:
        return f"{count:>9}  {report.cell}   failed: {report.error}"
    score = DASH if report.score is None else decimal(report.score)
    rest = f", about {duration(left)} left" if left else ""
    return f"{count:>9}  {report.cell}   {score}   {duration(report.seconds)}{rest}"


def difference_table(results: Results) -> str:
    """Return the paired differences of the mean score from the baseline at the headline fraction, one arm a line."""
    baseline, fraction, rows = results.baseline, results.headline_fraction, results.differences()
    width = max(LABEL, *(len(arm) + 2 for arm in results.arm_names))
    lines = [
        f"{'pairs':<{width}}mean {results.label} against {baseline}, {percent(fraction)} of the labels",
        f"{'':<{width}}{'difference (95 % interval)':<30}{'p':<7}{baseline} is as good at",
    ]
    for row in rows[rows["label_fraction"] == fraction].itertuples():
        comparison = results.compare(row.arm, fraction)
        needed = needed_text(comparison, results) if comparison else DASH
        difference = difference_text(row.difference, row.difference_low, row.difference_high)
        lines.append(f"{row.arm:<{width}}{difference:<30}{decimal(row.p):<7}{needed}")
    return "\n".join(lines)

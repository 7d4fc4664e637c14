"""The figure of the paired differences from the baseline."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmcuda.report.figures import INK, WIDTH, Picture, finish
from mmcuda.report.figures_results import suffix
from mmcuda.report.results import Results
from mmcuda.report.wording import percent, signed
from mmcuda.study.arms import parse_arm


def draw_differences(results: Results, plots: Path) -> Picture:
    """Draw the paired differences of the mean score from the baseline: a line an arm, a panel a label fraction.

    Args:
        results: of one kind of target.
        plots: folder of the PNG.
    """
    rows, baseline, score = results.differences(), str(results.baseline), f"mean {results.label}"
    arms, fractions = list(dict.fromkeys(rows["arm"])), sorted(set(rows["label_fraction"]))
    fig = Figure(figsize=(WIDTH, 0.9 + 0.24 * len(arms)))
    axes = fig.subplots(1, len(fractions), sharey=True, sharex=True, squeeze=False)[0]
    for panel, fraction in zip(axes, fractions, strict=True):
        panel.axvline(0, color=INK, linewidth=0.7, linestyle=":", zorder=1)
        for row in rows[rows["label_fraction"] == fraction].itertuples():
            height = arms.index(row.arm)
            error = [[row.difference - row.difference_low], [row.difference_high - row.difference]]
            arm = parse_arm(row.arm)
            panel.errorbar(row.difference, height, xerr=error, color=arm.color, marker=arm.marker, elinewidth=1.1)
        panel.set_title(f"{percent(fraction)} of the labels")
        panel.xaxis.set_major_locator(MaxNLocator(3))
        panel.xaxis.set_major_formatter(lambda value, _: signed(value))
    axes[0].set_yticks(range(len(arms)), arms)
    axes[0].set_ylim(len(arms) - 0.5, -0.5)  # the first arm at the top
    fig.supxlabel(f"difference in {score} from {baseline}", fontsize=8.5)
    found = rows[rows["label_fraction"] == fractions[0]]
    values = ", ".join(f"{row.arm} {signed(row.difference)}" for row in found.itertuples())
    alt = f"Paired differences in {score} from {baseline}, at {percent(fractions[0])} of the labels: {values}."
    caption = (
        f"Paired differences in {score} from {baseline}, by the share of training patients with labels. Bars: "
        "95 % bootstrap intervals over test patients and seeds; every pair has the same seed, the same labelled "
        "patients and the same test patients. Right of the dotted line the arm does better."
    )
    return finish(fig, plots, f"differences{suffix(results)}", alt, caption)

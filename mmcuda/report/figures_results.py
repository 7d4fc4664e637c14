"""Figures of the results: label efficiency, ROC, precision-recall and calibration."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from mmcuda.report.figures import INK, WIDTH, Picture, finish, panels
from mmcuda.report.results import Results
from mmcuda.report.run import Predictions
from mmcuda.report.wording import decimal, headline, interval_meaning, percent
from mmcuda.study.arms import parse_arm

CALIBRATION_BINS = 8
GRID = np.linspace(0, 1, 101)  # common false positive rates, or recalls, on which the seeds are averaged

# (arm, labels [n], probabilities of each seed [n]) of one target
Scored = tuple[str, np.ndarray, list[np.ndarray]]


def look_of(name: str) -> dict[str, Any]:
    """Return colour, marker and line of an arm's curves."""
    arm = parse_arm(name)
    return {"color": arm.color, "marker": arm.marker, "linestyle": arm.readout.line}


def suffix(results: Results) -> str:
    """Return what the names of figures end in: nothing for binary targets, and else their kind."""
    return f"_{results.kind.kind}" if results.kind.kind != "binary" else ""


def _spread(values: list[float], gap: float) -> list[float]:
    """Move ``values`` apart so that neighbours differ by ``gap`` or more, keeping their order and mean."""
    order = np.argsort(values)
    placed = np.array(values, dtype=float)[order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed += np.mean(values) - placed.mean()
    return [float(placed[np.flatnonzero(order == i)[0]]) for i in range(len(values))]


def _draw_curves(axes: Axes, results: Results) -> None:
    """Draw one line with interval bars per arm, named at its right end."""
    ends: dict[str, float] = {}
    for index, name in enumerate(results.shown_in_curves()):
        scores = [(fraction, results.score(name, fraction)) for fraction in results.fractions]
        scores = [(fraction, score) for fraction, score in scores if not math.isnan(score.value)]
        if not scores:
            continue
        dodge = 1 + 0.025 * (index - (len(results.shown_in_curves()) - 1) / 2)
        x = [fraction * dodge for fraction, _ in scores]
        y = [score.value for _, score in scores]
        below = [max(0.0, np.nan_to_num(score.value - score.low)) for _, score in scores]
        above = [max(0.0, np.nan_to_num(score.high - score.value)) for _, score in scores]
        axes.errorbar(x, y, yerr=[below, above], elinewidth=0.9, zorder=3, **look_of(name))
        ends[name] = y[-1]
    if ends:
        low, high = axes.get_ylim()
        places = _spread(list(ends.values()), 0.055 * (high - low))
        for name, place in zip(ends, places, strict=True):
            axes.annotate(
                name,
                (results.fractions[-1], place),
                xytext=(14, 0),
                textcoords="offset points",
                color=parse_arm(name).color,
                va="center",
                fontweight="bold",
                annotation_clip=False,
            )


def draw_label_efficiency(results: Results, scored_targets: list[str], plots: Path) -> Picture:
    """Draw the mean primary metric of ``scored_targets``, all of one kind, over the label fraction, one line an arm."""
    fig = Figure(figsize=(WIDTH, 3.7))
    axes = fig.subplots()
    axes.set_xscale("log")
    axes.set_xticks(results.fractions, [percent(fraction) for fraction in results.fractions])
    axes.minorticks_off()
    axes.set_xlim(results.fractions[0] / 1.15, results.fractions[-1] * 1.15)
    axes.set_xlabel("training patients with labels (log scale)")
    axes.set_ylabel(f"mean {results.label}")
    _draw_curves(axes, results)
    row = results.headline_comparison()
    if row and row.needed and row.needed > row.fraction:
        axes.plot([row.fraction, row.needed], [row.subject.value] * 2, color=INK, linestyle=(0, (1, 2)), linewidth=1)
        axes.annotate(
            percent(row.needed),
            (row.needed, row.subject.value),
            xytext=(3, -4),
            textcoords="offset points",
            va="top",
        )
    axes.yaxis.set_major_formatter(lambda value, _: decimal(value))
    values = "; ".join(
        f"{name} " + ", ".join(decimal(results.score(name, fraction).value) for fraction in results.fractions)
        for name in results.shown_in_curves()
    )
    fractions = ", ".join(percent(fraction) for fraction in results.fractions)
    alt = (
        f"Line chart of the mean {results.label} at {fractions} of the labelled patients: {values}. {headline(results)}"
    )
    score = f"Mean {results.label}"
    plural = "target" if len(scored_targets) == 1 else "targets"
    caption = (
        f"{score} of {len(scored_targets)} {plural} on the test patients, by the share of training patients whose "
        f"labels the classifier saw. Bars: {interval_meaning(results)}."
    )
    if row and row.needed and row.needed > row.fraction:
        caption += (
            f" Dotted: from {results.subject} at {percent(row.fraction)} to where {results.baseline} is as good, "
            "read off the line between the fractions measured."
        )
    for fraction, targets in results.untrained_targets(scored_targets).items():
        caption += (
            f" At {percent(fraction)} the mean lacks {', '.join(targets)} for some encoder, because the labelled "
            "patients show one class only: do not compare it with the other fractions."
        )
    return finish(fig, plots, f"label_efficiency{suffix(results)}", alt, caption)


def _scored(predictions: Predictions, target: str, fraction: float, arms: Iterable[str]) -> list[Scored]:
    """Return what one target's panel shows: the test images with a label, the classifiers that saw both classes."""
    found = []
    for arm in arms:
        labels, seeds = predictions.of(target, arm, fraction)
        if seeds:
            found.append((arm, labels.astype(int), [seed[:, 0] for seed in seeds]))
    return found


def _roc_panel(axes: Axes, scored: Scored) -> None:
    name, labels, seeds = scored
    curves = []
    for probabilities in seeds:
        false_positive, true_positive, _ = roc_curve(labels, probabilities)
        curves.append(np.interp(GRID, false_positive, true_positive))
    sensitivity = np.mean(curves, axis=0)
    axes.plot(np.r_[0, GRID], np.r_[0, sensitivity], label=name, **look_of(name) | {"marker": ""})


def _precision_recall_panel(axes: Axes, scored: Scored) -> None:
    name, labels, seeds = scored
    curves = []
    for probabilities in seeds:
        precision, recall, _ = precision_recall_curve(labels, probabilities)
        found = recall > 0  # without a true positive the precision is a convention (1) or 0, not a point of the curve
        curves.append(np.interp(GRID, recall[found][::-1], precision[found][::-1]))  # [::-1]: recall ascends
    axes.plot(GRID, np.mean(curves, axis=0), label=name, **look_of(name) | {"marker": ""})


def _calibration_panel(axes: Axes, scored: Scored) -> None:
    name, labels, seeds = scored
    probabilities = np.concatenate(seeds)
    observed = np.tile(labels, len(seeds))
    bins = [part for part in np.array_split(np.argsort(probabilities), CALIBRATION_BINS) if len(part)]
    predicted = [probabilities[part].mean() for part in bins]
    frequency = [observed[part].mean() for part in bins]
    axes.plot(predicted, frequency, label=name, linewidth=1.2, **look_of(name))


def _grid_of_targets(
    predictions: Predictions,
    shown: list[str],
    fraction: float,
    arms: list[str],
    draw: Callable[[Axes, Scored], None],
) -> tuple[Figure, list[Axes]]:
    fig, axes = panels(len(shown))
    for panel, target in zip(axes, shown, strict=True):
        scored = _scored(predictions, target, fraction, arms)
        for entry in scored:
            draw(panel, entry)
        panel.set_title("\n".join(textwrap.wrap(target, 24)))
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), box_aspect=1)
        panel.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        panel.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    named = {name: handle for panel in axes for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    fig.legend(list(named.values()), list(named), loc="outside upper left", ncols=2 if len(axes) == 1 else 4)
    return fig, axes


def draw_target_curves(
    predictions: Predictions, shown: list[str], results: Results, plots: Path
) -> tuple[Picture, Picture, Picture]:
    """Draw ROC, precision-recall and calibration of the binary targets ``shown`` at the headline fraction."""
    fraction = results.headline_fraction
    context = f"with {percent(fraction)} of the labelled patients"
    over_seeds = f", mean of {len(results.seeds)} seeds" if results.several_seeds else ""
    names = ", ".join(shown)
    draw_all = (predictions, shown, fraction, results.shown_in_curves())

    fig, axes = _grid_of_targets(*draw_all, _roc_panel)
    for panel in axes:
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.7, linestyle=":", zorder=1)
        panel.set(xlabel="false positive rate", ylabel="sensitivity" if panel is axes[0] else "")
    alt = f"ROC curves {context}, a panel for each target: {names}; one line per arm, chance as the diagonal."
    roc_caption = (
        f"ROC curves {context}{over_seeds}. Dotted: chance. Probabilities are means over the draws of labelled "
        "patients, so a curve can enclose more than the table's AUROC, which is a mean over draws."
    )
    roc = finish(fig, plots, "roc", alt, roc_caption)

    fig, axes = _grid_of_targets(*draw_all, _precision_recall_panel)
    for panel, target in zip(axes, shown, strict=True):
        prevalence = float(np.nanmean(predictions.targets[:, predictions.names.index(target)]))
        panel.axhline(prevalence, color=INK, linewidth=0.7, linestyle=":", zorder=1)
        panel.set(xlabel="recall", ylabel="precision" if panel is axes[0] else "")
    alt = f"Precision-recall curves {context}, a panel for each target: {names}; one line per arm."
    caption = f"Precision-recall curves {context}{over_seeds}. Dotted: the share of positives, what chance would give."
    precision_recall = finish(fig, plots, "precision_recall", alt, caption)

    fig, axes = _grid_of_targets(*draw_all, _calibration_panel)
    for panel in axes:
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.7, linestyle=":", zorder=1)
        panel.set(xlabel="predicted probability", ylabel="observed frequency" if panel is axes[0] else "")
    alt = f"Reliability plots {context}, a panel for each target: {names}; observed frequency over predicted."
    caption = (
        f"Calibration {context}: observed frequency over mean predicted probability in {CALIBRATION_BINS} bins of "
        f"equal size{', seeds pooled' if results.several_seeds else ''}. Dotted: perfect calibration."
    )
    return roc, precision_recall, finish(fig, plots, "calibration", alt, caption)

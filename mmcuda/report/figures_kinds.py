"""Figures of targets that are not binary: confusion matrices of classes, predicted against true numbers."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from mmcuda.report.figures import INK, Picture, finish, panels
from mmcuda.report.results import Results
from mmcuda.report.run import Predictions
from mmcuda.report.wording import percent
from mmcuda.study.arms import parse_arm
from mmcuda.targets import Classes


def draw_kind(predictions: Predictions, shown: list[str], results: Results, plots: Path) -> Picture:
    """Draw what the subject of a report predicts against what is true, a panel a target of one kind.

    Args:
        predictions: of the test images.
        shown: names of the targets, all of the kind of ``results``.
        results: of that kind.
        plots: folder of the PNG.
    """
    fraction, subject = results.headline_fraction, results.subject
    fig, axes = panels(len(shown))
    for panel, name in zip(axes, shown, strict=True):
        truth, predicted = predictions.of(name, subject, fraction)
        target = predictions.kinds[name]
        if isinstance(target, Classes):
            _confusion(panel, target, truth, [target.decide(of_seed) for of_seed in predicted])
        else:
            _scatter(panel, subject, truth, np.mean([of_seed[:, 0] for of_seed in predicted], axis=0))
        panel.set_title("\n".join(textwrap.wrap(name, 24)))
        panel.set_xlabel("predicted")
        panel.set_ylabel("true" if panel is axes[0] else "")
    seeds = f", {len(results.seeds)} seeds pooled" if results.several_seeds else ""
    what = f"of {subject} with {percent(fraction)} of the labelled patients, on the test images"
    if results.kind.kind == "continuous":
        caption = f"Predicted against true numbers {what}. Dotted: equal."
    else:
        caption = f"Confusion matrices {what}{seeds}: the share of each true class (row) that is called each class."
    alt = f"{caption} A panel for each target: {', '.join(shown)}."
    return finish(fig, plots, f"predicted_{results.kind.kind}", alt, caption)


def _confusion(axes: Axes, target: Classes, truth: np.ndarray, decided: list[np.ndarray]) -> None:
    count = np.zeros((len(target.classes), len(target.classes)))
    for of_seed in decided:
        np.add.at(count, (truth.astype(int), of_seed.astype(int)), 1)
    total = count.sum(axis=1, keepdims=True)
    shares = np.divide(count, total, out=np.zeros_like(count), where=total > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    ticks, names = range(len(target.classes)), [textwrap.shorten(name, 14) for name in target.classes]
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(ticks, names)
    if len(names) <= 10:
        for row, column in np.ndindex(shares.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            text = f"{100 * shares[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)


def _scatter(axes: Axes, subject: str, truth: np.ndarray, predicted: np.ndarray) -> None:
    axes.scatter(predicted, truth, s=6, linewidths=0, alpha=0.5, color=parse_arm(subject).color, rasterized=True)
    ends = [min(predicted.min(), truth.min()), max(predicted.max(), truth.max())]
    axes.plot(ends, ends, color=INK, linewidth=0.7, linestyle=":", zorder=1)

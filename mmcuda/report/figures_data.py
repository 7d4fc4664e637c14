"""Figures of the images, the embedding and the training."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mmcuda.report.figures import NEGATIVE, NO_VALUE, POSITIVE, WIDTH, Picture, finish
from mmcuda.report.run import CohortSummary, Embedding, Samples
from mmcuda.study.arms import parse_arm

SAMPLES_PER_ROW = 8
MAP_POINTS = 2000
# Viridis without its ends, which vanish on a dark and on a white page.
SCALE = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.15, 0.93, 256)))


def draw_samples(samples: Samples, plots: Path) -> Picture:
    """Draw sample images: a column an image, a row a channel."""
    channels = len(samples.channel_names)
    count = min(len(samples.images), SAMPLES_PER_ROW * max(1, 3 // channels))
    columns = min(count, SAMPLES_PER_ROW)
    rows = math.ceil(count / columns) * channels
    cell = WIDTH / (SAMPLES_PER_ROW + 1)
    fig = Figure(figsize=((columns + 1) * cell, rows * cell + 0.45 * rows / channels))
    grid = fig.subplots(rows, columns, squeeze=False)
    for panel in grid.flat:
        panel.set_axis_off()
    for index in range(count):
        for channel, name in enumerate(samples.channel_names):
            panel = grid[index // columns * channels + channel, index % columns]
            panel.imshow(samples.images[index, channel], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if channel == 0:
                title = "\n".join(textwrap.wrap(samples.titles[index], 15)[:3])
                panel.set_title(title, fontsize=7, fontweight="normal")
            if index % columns == 0:
                label = "\n".join(textwrap.wrap(name, 12))
                panel.text(-0.12, 0.5, label, transform=panel.transAxes, ha="right", va="center", fontsize=7.5)
    names = ", ".join(samples.channel_names)
    alt = f"{count} sample images, each shown by channel: {names}."
    caption = f"Sample images as the encoder sees them. Channel{'s' if channels > 1 else ''}: {names}."
    return finish(fig, plots, "samples", alt, caption)


def map_in_two_dimensions(features: np.ndarray) -> np.ndarray:
    """Return t-SNE coordinates [n, 2] of ``features`` [n, F], starting from their first principal components."""
    components = min(50, *features.shape)
    reduced = PCA(components, random_state=0).fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3)
    coordinates: np.ndarray = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=0).fit_transform(
        reduced
    )
    return coordinates


def _points(axes: Axes, points: np.ndarray, **look: Any) -> PathCollection:
    return axes.scatter(points[:, 0], points[:, 1], s=7, linewidths=0, rasterized=True, **look)


def _scale_panel(fig: Figure, axes: Axes, points: np.ndarray, title: str, values: np.ndarray) -> None:
    known = np.isfinite(values)
    _points(axes, points[~known], color=NO_VALUE, alpha=0.4)
    colored = _points(axes, points[known], c=values[known], cmap=SCALE)
    bar = fig.colorbar(colored, ax=axes, shrink=0.75, aspect=26)
    bar.outline.set_visible(False)
    axes.set_title(title + (" (grey: missing)" if not known.all() else ""))


def _class_panel(axes: Axes, points: np.ndarray, name: str, values: np.ndarray, classes: tuple[str, ...]) -> None:
    unknown = np.isnan(values)
    if unknown.any():
        _points(axes, points[unknown], color=NO_VALUE, alpha=0.4, label="no label")
    colors = [NEGATIVE, POSITIVE] if len(classes) == 2 else matplotlib.colormaps["tab20"](np.arange(len(classes)) % 20)
    for label, (called, color) in enumerate(zip(classes, colors, strict=True)):
        _points(axes, points[values == label], color=color, alpha=0.9, label=called)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=3, markerscale=2, handletextpad=0.1)
    axes.set_title(f"target: {name}")


def draw_embedding(embedding: Embedding, cohort: CohortSummary, plots: Path) -> Picture:
    """Draw the 2-D map twice: coloured by a clinical label and by a target.

    The clinical label is ``diameter`` where there is one, else the first; the target is the first with two classes.
    """
    count = len(embedding.features)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:MAP_POINTS])
    points = map_in_two_dimensions(embedding.features[chosen])
    fig = Figure(figsize=(WIDTH, 3.75))
    left, right = fig.subplots(1, 2)
    for panel in (left, right):
        panel.set(xticks=[], yticks=[])
        panel.set_aspect("equal", adjustable="datalim")
        panel.grid(False)
        panel.spines[:].set_visible(False)
    shown = []
    if embedding.clinical:
        label = "diameter" if "diameter" in embedding.clinical else next(iter(embedding.clinical))
        _scale_panel(fig, left, points, f"clinical label: {label}", embedding.clinical[label][chosen])
        shown.append(f"the clinical label {label}")
    if embedding.targets:
        two_classes = (name for name in embedding.targets if name not in cohort.single_class_targets)
        target = next(two_classes, next(iter(embedding.targets)))
        kind, values = next(t.kind for t in cohort.targets if t.name == target), embedding.targets[target][chosen]
        if kind.kind in ("ordinal", "continuous"):
            _scale_panel(fig, right, points, f"target: {target}", values)
        else:
            _class_panel(right, points, target, values, kind.classes)
        shown.append(f"the target {target}")
    colored = f"coloured by {' and by '.join(shown)}" if shown else "without labels"
    alt = f"Two-dimensional map of {len(chosen)} test images, {colored}."
    drawn = f"{len(chosen):,}" if len(chosen) == count else f"{len(chosen):,} of {count:,}"
    caption = (
        f"t-SNE of the features of the encoder of {embedding.arm} (seed {embedding.seed}) on {drawn} test images, "
        f"{colored}. "
        "Neighbourhoods carry meaning here; distances between far groups do not."
    )
    return finish(fig, plots, "embedding", alt, caption)


def draw_training(logs: dict[tuple[str, int], pd.DataFrame], plots: Path) -> Picture:
    """Draw loss, learning rate, throughput and data wait over the steps, one line an encoder."""
    fig = Figure(figsize=(WIDTH, 4.3))
    loss, rate, speed, wait = fig.subplots(2, 2, sharex=True).flat
    names = list(dict.fromkeys(name for name, _ in logs))
    for index, name in enumerate(names):
        seeds = pd.concat([log for (arm, _), log in logs.items() if arm == name])
        mean = seeds.groupby("step").mean()
        smooth = mean.ewm(span=max(1, len(mean) / 25)).mean()
        color = parse_arm(name).color
        end = smooth["loss"].iloc[-1]  # the losses lie far apart; what each has learned does not
        loss.plot(mean.index, mean["loss"] - end, color=color, linewidth=0.7, alpha=0.3)
        loss.plot(mean.index, smooth["loss"] - end, color=color, label=name)
        # Equal schedules lie on top of each other: the wider line shows below the narrower one.
        rate.plot(mean.index, mean["learning_rate"], color=color, linewidth=1.4 + 1.8 * (len(names) - 1 - index))
        speed.plot(mean.index, smooth["images_per_second"], color=color)
        wait.plot(mean.index, 100 * smooth["data_wait"], color=color)
        wait.plot(mean.index, 100 * smooth["augmentation"], color=color, linestyle=":")
    loss.set_title("loss, above its end")
    rate.set_title("learning rate")
    speed.set_title("images per second")
    wait.set_title("data wait and, dotted, augmentation, % of the step")
    for panel in (rate, speed, wait):
        panel.set_ylim(bottom=0)
    for panel in (speed, wait):
        panel.set_xlabel("step")
    fig.legend(*loss.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    shown = "loss, learning rate, speed, data wait and augmentation"
    alt = f"Four line charts over the training steps of {', '.join(names)}: {shown}."
    caption = (
        "Pretraining: mean over seeds, smoothed (faint: the loss of every step). Losses are shown above their value at "
        "the end, which the table gives: different methods have different losses, so levels do not compare."
    )
    return finish(fig, plots, "training", alt, caption)

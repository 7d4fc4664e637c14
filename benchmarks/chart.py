"""Draw results/targets.json as results/chart.svg: time of each peer relative to mmcuda, by N.

The SVG follows the reader's light or dark page: its ink is currentColor, its lines are CSS variables.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from measure import RESULTS
from peers import COMPILED, LEAN, METRIC_LEARNING, OURS, PUBLISHED

INK = "#1c1d1f"
LABEL_HEIGHT = 1.2  # a label takes this factor of the vertical axis
# Per peer: its line on a light page (Okabe-Ito) and on a dark one, its marker.
LINES = {
    METRIC_LEARNING: ("#009e73", "#35c79b", "D"),
    PUBLISHED: ("#d55e00", "#ff8a3d", "o"),
    LEAN: ("#0072b2", "#56b4e9", "s"),
    COMPILED: ("#b0578d", "#e08bbf", "^"),
    OURS: (INK, INK, ""),
}
STYLE = """<style>
svg {{ color: {ink}; {light} }}
@media (prefers-color-scheme: dark) {{ svg {{ color: #e6edf3; {dark} }} }}
</style>
"""


def figure(times: dict[str, dict[int, float]]) -> Figure:
    """Lines over N on logarithmic axes, each named at its end."""
    fig = Figure(figsize=(8.2, 3.9), layout="constrained")
    axes = fig.subplots()
    sizes = sorted(times[OURS])
    ratios = {name: [times[name][n] / times[OURS][n] for n in sizes] for name in LINES}
    height = 0.0  # of the label below
    for name in sorted(LINES, key=lambda name: ratios[name][-1]):
        color, _, marker = LINES[name]
        axes.plot(sizes, ratios[name], color=color, marker=marker, markersize=5, linewidth=1.8)
        text = name if name == OURS else f"{name}, {ratios[name][-1]:.1f}x"
        height = max(ratios[name][-1], LABEL_HEIGHT * height)
        place = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (sizes[-1], height), color=color, annotation_clip=False, **place)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.set_yticks(ticks := [1, 2, 5, 10, 20, 50], [f"{t}x" for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(0.8, 1.3 * max(max(of_peer) for of_peer in ratios.values()))
    axes.set_xlabel("N, rows of a batch")
    axes.set_title("Time of forward + backward, relative to mmcuda", loc="left", fontsize=10, fontweight="bold")
    return fig


def svg(fig: Figure) -> str:
    """The figure as SVG, its colours replaced by the reader's."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue().replace(INK, "currentColor")
    variables = {"light": "", "dark": ""}
    for i, (light, dark, _) in enumerate(LINES.values()):
        if light != INK:
            text = text.replace(light, f"var(--line{i})")
            variables["light"] += f"--line{i}: {light}; "
            variables["dark"] += f"--line{i}: {dark}; "
    start = text.index(">", text.index("<svg")) + 2
    return text[:start] + STYLE.format(ink=INK, **variables) + text[start:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", nargs="?", type=Path, default=RESULTS / "targets.json")
    path = parser.parse_args().json
    times: dict[str, dict[int, float]] = defaultdict(dict)
    for row in json.loads(path.read_text())["times"]:
        if row["name"] in LINES and row["N"] >= 512:
            times[row["name"]][row["N"]] = row["median_s"]
    colors = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    spines = {"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6}
    grid = {"axes.grid": True, "grid.color": INK, "grid.alpha": 0.14, "grid.linewidth": 0.6}
    with mpl.rc_context({"font.size": 9, "svg.hashsalt": "mmcuda", **colors, **spines, **grid}):
        path.with_name("chart.svg").write_text(svg(figure(times)))


if __name__ == "__main__":
    main()

"""Chart of what timings.py has timed: milliseconds of forward + backward over N, ours and others'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe-Ito
COLORS = {
    "mmcuda": "#000000",
    "dense": "#0072b2",
    "dense, compiled": "#cc79a7",
    "memeff": "#d55e00",
    "inf-cl": "#009e73",
    "cut-cross-entropy, unfiltered": "#e69f00",
    "cut-cross-entropy": "#f0c14b",
    "siglip-kernel": "#56b4e9",
}
PANELS = (("supcon", "bf16"), ("supcon", "fp32"), ("supcon", "tf32"), ("clip", "bf16"))
SUPCON_D = 128


def panel(axes: Axes, rows: list[dict[str, Any]], task: str, dtype: str, temperature: float) -> None:
    """One task and dtype; SupCon of one D, CLIP of the D that goes with each N."""
    sizes = set()
    for name, color in COLORS.items():
        times = {}
        for row in rows:
            of_panel = row["task"] == task and row["dtype"] == dtype and row["temperature"] == temperature
            of_panel = of_panel and (task != "supcon" or row["d"] == SUPCON_D)
            if of_panel and row["name"] == name and "call_ms" in row:
                times[row["n"]] = row["call_ms"][1]
        if times:
            points = sorted(times.items())
            axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=4, linewidth=1.6, label=name)
            sizes |= set(times)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted(sizes), [f"{n:,}" for n in sorted(sizes)], rotation=45, ha="right")
    axes.minorticks_off()
    width = f"D = {SUPCON_D}" if task == "supcon" else "D = 512, 768"
    axes.set_title(f"{task}, {dtype}, {width}", loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel("N")
    if sizes:
        axes.legend(fontsize=7, frameon=False)


def draw(timings: dict[str, Any], path: Path) -> None:
    """Write the chart; its format is that of the path."""
    style = {"font.size": 8, "svg.hashsalt": "mmcuda", "axes.grid": True, "grid.alpha": 0.2, "grid.linewidth": 0.6}
    with mpl.rc_context({**style, "axes.spines.top": False, "axes.spines.right": False}):
        fig = Figure(figsize=(12, 3.6), layout="constrained", facecolor="white")
        for axes, (task, dtype) in zip(fig.subplots(1, len(PANELS)), PANELS, strict=True):
            panel(axes, timings["rows"], task, dtype, timings["temperature"])
        fig.axes[0].set_ylabel(f"ms of forward + backward, {timings['device']}")
        fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)

"""The look of every figure, and its two forms: a PNG in plots/ and an inline SVG that follows the page's colours."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH = 8.2  # inches of a figure as wide as the page allows
INK = "#1c1d1f"  # text and axes; the page's own text colour in the SVG
BLUE = "#0072b2"  # too dark for a dark page, which shows the palette's sky blue in its place

NEGATIVE, POSITIVE, NO_VALUE = "#56b4e9", "#d55e00", "#9a9a9a"

STYLE: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "mmcuda",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
    ),
    "grid.color": INK,
}


@dataclass(frozen=True)
class Picture:
    """A finished figure."""

    name: str  # plots/<name>.png
    alt: str
    caption: str
    svg: Markup


def _inline_svg(fig: Figure, name: str, alt: str) -> Markup:
    """Return the figure as an SVG element: transparent, in the page's font and text colour, with unique ids."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    fig.savefig(buffer, format="svg", transparent=True, metadata=no_metadata, dpi=200)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(BLUE, "var(--blue)")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r"font: (?:(bold|\d+) )?([\d.]+px)[^;\"]*", _page_font, text)
    share = min(100, round(100 * fig.get_figwidth() / WIDTH))
    head = Markup('<svg role="img" aria-label="{}" style="width:{}%" ').format(alt, share)
    opening, _, body = text.partition(">")
    view_box = re.search(r'viewBox="[^"]*"', opening)
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return head + Markup(f"{view_box[0] if view_box else ''} {namespaces}>{body}")


def _page_font(match: re.Match[str]) -> str:
    return f"font-size: {match[2]}; font-weight: {match[1] or 'normal'}"


def finish(fig: Figure, plots: Path, name: str, alt: str, caption: str) -> Picture:
    """Write plots/<name>.png (on white) and return the figure for the page."""
    fig.savefig(plots / f"{name}.png", dpi=160, facecolor="white")
    return Picture(name, alt, caption, _inline_svg(fig, name, alt))


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` square panels in rows of up to four."""
    columns = min(4, count)
    rows = math.ceil(count / columns)
    side = WIDTH / max(3, columns)
    fig = Figure(figsize=(columns * side, rows * (side + 0.45) + 0.25), layout=ConstrainedLayoutEngine(h_pad=0.09))
    axes = list(fig.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return fig, axes[:count]

"""Markdown tables of what check.py found on a GPU, the measured times beside the modelled ones.

    python report.py OUT           prints them
    python report.py OUT --write   puts them into csrc/cuda/README.md, between "<!-- measured: begin -->" and its end,
                                   and draws OUT/chart.svg

Results of a run without a device are shown as such, and not written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from report_kernels import OURS, Row, beside_model, launches, number, profiles, table

README = Path(__file__).resolve().parents[2] / "csrc/cuda/README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
OUR_HEAD = ["ms", "ms as a CUDA graph", "of mma.sync", "peak MB", "error of the loss", "of the gradient"]


def median(row: Row | None, key: str) -> float | None:
    return row[key][1] if row and key in row else None


def find(rows: list[Row], **wanted: object) -> Row | None:
    return next((row for row in rows if wanted.items() <= row.items()), None)


def conditions(summary: dict[str, Any]) -> str:
    device = summary["device"]
    where = f"{device['name']}, {device['memory_gb']:.0f} GB" if device else f"no device ({summary['no_device']})"
    dirty = ", with uncommitted changes" if summary["dirty"] else ""
    versions = ", ".join(f"{name} {value}" for name, value in summary["versions"].items())
    return f"{where}; {summary['date']}, commit {summary['commit']}{dirty}; {versions}."


def steps(summary: dict[str, Any]) -> str:
    rows = [(name, step["state"], number(step.get("seconds"), ".0f")) for name, step in summary["steps"].items()]
    return table(["step", "state", "seconds"], rows) + ("" if summary["finished"] else "\n\nThe run was interrupted.")


def ceilings(timings: dict[str, Any]) -> str:
    rates = [(name.replace("_", " "), value) for name, value in timings["ceilings"].items() if name != "device"]
    return table(["rate", timings["device"]], rates)


def our_cells(row: Row | None) -> list[str]:
    row = row or {}
    return [
        number(median(row, "call_ms")),
        number(median(row, "graph_ms")),
        number(row.get("of_ceiling"), ".0%"),
        number(row.get("peak_mb"), ",.1f"),
        number(row.get("loss_error"), ".0e"),
        number(row.get("gradient_error"), ".0e"),
    ]


def other_cell(row: Row | None, ours: Row | None) -> str:
    """Another loss's milliseconds, and how many times ours that is; or that it did not run."""
    time, our_time = median(row, "call_ms"), median(ours, "call_ms")
    if time is None:
        return "" if row is None else "did not run"
    return f"{time:.3g}" + (f" ({time / our_time:.1f}x)" if our_time else "")


def times_of_losses(timings: dict[str, Any], task: str) -> str:
    """One row per shape: ours, then the others that ran at all."""
    rows = [row for row in timings["rows"] if row["task"] == task]
    names = dict.fromkeys(row["name"] for row in rows if row["name"] != OURS and "call_ms" in row)
    lines = []
    for dtype, temperature, d, n in sorted({(row["dtype"], row["temperature"], row["d"], row["n"]) for row in rows}):
        shape = {"dtype": dtype, "temperature": temperature, "d": d, "n": n}
        ours = find(rows, name=OURS, **shape)
        others = [other_cell(find(rows, name=name, **shape), ours) for name in names]
        lines.append([dtype, f"{n:,}", d, temperature, *our_cells(ours), *others])
    return table(["features", "N", "D", "temperature", *OUR_HEAD, *(f"{name}, ms" for name in names)], lines)


def exceptions(timings: dict[str, Any]) -> str:
    """Losses that did not run, or not as a CUDA graph, or are less exact than they should be."""
    lines = []
    for row in timings["rows"]:
        what = f"- {row['task']}, {row['name']}, {row['n']:,} x {row['d']}, {row['dtype']}: "
        if row.get("begun"):
            lines.append(what + "not finished when the time of all rows was over")
        if "problem" in row:
            lines.append(what + row["problem"])
        if "no_graph" in row:
            lines.append(f"{what}no CUDA graph, {row['no_graph']}")
        if not row.get("agrees", True):
            of_loss, of_gradient = (number(row[f"{of}_error"], ".0e") or "not finite" for of in ("loss", "gradient"))
            lines.append(f"{what}error of the loss {of_loss}, of the gradient {of_gradient}")
    return "\n".join(lines)


def read(out: Path) -> tuple[dict[str, Any], dict[str, Any] | None, str]:
    """summary.json, timings.json and ncu.txt, as far as they are there."""
    timings, ncu = out / "timings.json", out / "ncu.txt"
    return (
        json.loads((out / "summary.json").read_text()),
        json.loads(timings.read_text()) if timings.exists() else None,
        ncu.read_text() if ncu.exists() else "",
    )


def report(out: Path) -> str:
    """All tables of a run."""
    summary, timings, ncu = read(out)
    parts = [conditions(summary), steps(summary)]
    sections: dict[str, str] = {}
    if summary["device"] and timings:
        sections = {
            "Rates of this device, each unit by itself (`benchmarks/gpu/ceilings.cu`):": ceilings(timings),
            "SupCon, forward + backward, medians. Errors are relative, against float64; `of mma.sync`: the formula's "
            "FLOP/s (`benchmarks/gpu/losses.py`) as a fraction of the measured mma.sync rate; in brackets, how many "
            "times ours:": times_of_losses(timings, "supcon"),
            "CLIP, likewise; siglip-kernel is another loss of the same shape:": times_of_losses(timings, "clip"),
            "Losses that did not run, or not as a CUDA graph, or are less exact:": exceptions(timings),
            "SupCon's passes over all pairs, beside the model:": beside_model(timings, README.read_text()),
            "Every launch of one call of SupCon, N = 8,192, D = 128, bf16:": launches(
                find(timings["rows"], task="supcon", name=OURS, n=8192, d=128, dtype="bf16")
            ),
            "The passes over all pairs in Nsight Compute:": profiles(ncu),
        }
    parts += [f"{title}\n\n{body}" for title, body in sections.items() if body]
    return "\n\n".join(parts)


def write(readme: Path, text: str) -> None:
    """Put the text between its marks; a README without them gets a section at its end."""
    content = readme.read_text()
    if BEGIN not in content:
        content = f"{content.rstrip()}\n\n## Measured\n\n{BEGIN}\n{END}\n"
    before, rest = content.split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


def main(arguments: list[str] | None = None, readme: Path = README) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--write", action="store_true", help="into csrc/cuda/README.md, with a chart in OUT")
    args = parser.parse_args(arguments)
    if not (args.out / "summary.json").exists():
        parser.error(f"{args.out} has no summary.json")
    text = report(args.out)
    if not args.write:
        print(text)
        return 0
    summary, timings, _ = read(args.out)
    if not summary["device"] or not timings:
        print("nothing was measured: nothing is written", file=sys.stderr)
        return 1
    from timings_chart import draw  # matplotlib: only here

    chart = args.out / "chart.svg"
    draw(timings, chart)
    link = os.path.relpath(chart.resolve(), readme.resolve().parent)
    write(readme, f"{text}\n\n![milliseconds of forward + backward over N]({link})")
    print(f"written: {readme}, {chart}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Draws the plots of speed from `benchmarks/results`: `python .docs/draw_speed.py`.

It needs matplotlib (`pip install -e ".[docs]"`). Each file of results holds a list of what the
scripts of `benchmarks/` wrote with `--json`. A plot shows how many times maxmod's median time each
contender took, so that 1 is maxmod and further right is slower; it is written once for light and
once for dark backgrounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "benchmarks" / "results"

# Okabe and Ito's palette, which most people with colour vision deficiencies can tell apart, and a
# marker for each, for everybody.
STYLES = {
    "NumPy": ("#E69F00", "o"),
    "PyTorch": ("#D55E00", "s"),
    "torch.compile": ("#CC79A7", "D"),
    "JAX": ("#009E73", "^"),
    "transformers": ("#56B4E9", "v"),
}
# Ink and paper of the two schemes.
SCHEMES = {"light": ("#1d2550", "#ffffff", "#d9dcea"), "dark": ("#eef0ff", "#14161f", "#30364f")}
# The benchmarks of each plot.
PLOTS = {"speed": ("workloads", "call_overhead", "gpt2_prefill", "decode")}

Ratios = dict[str, dict[str, float]]


def newest() -> Path:
    """Returns the newest file of results of all plots; names begin with the date."""
    return max(RESULTS.glob("*_cpu_*.json"))


def ratios(content: Iterable[dict[str, Any]], benchmarks: Iterable[str]) -> Ratios:
    """Returns for each workload how many times maxmod's median each contender took.

    Workloads without a contender are left out.
    """
    times: Ratios = {}
    for run in content:
        if run["benchmark"] in benchmarks:
            for row in run["rows"]:
                times.setdefault(row["workload"], {})[row["contender"]] = row["median_s"]
    found: Ratios = {}
    for workload, row in times.items():
        others = {name: row[name] / row["maxmod"] for name in STYLES if name in row}
        if others:
            found[workload] = others
    return found


def draw(found: Ratios, caption: str, scheme: str, path: Path) -> None:
    """Draws one plot: a row for each workload, a marker for each contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ink, paper, lines = SCHEMES[scheme]
    # Text stays text, and the file depends on nothing but the numbers.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "maxmod"})
    figure, axes = pyplot.subplots(figsize=(9, 1.3 + 0.42 * len(found)), layout="constrained")
    figure.set_facecolor(paper)
    axes.set_facecolor(paper)
    rows = list(found)[::-1]
    for name, (colour, marker) in STYLES.items():
        points = [(found[row][name], y) for y, row in enumerate(rows) if name in found[row]]
        if points:
            axes.scatter(*zip(*points), color=colour, marker=marker, s=52, label=name, zorder=3)
    axes.axvline(1, color="#5566bb", linewidth=2, zorder=2)
    axes.annotate(
        "maxmod", (1, len(rows) - 0.55), xytext=(5, 0), textcoords="offset points", color=ink
    )
    axes.set_xscale("log")
    ticks = [
        t for t in (0.5, 1, 2, 5, 10, 20) if t <= 1.2 * max(max(r.values()) for r in found.values())
    ]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks], color=ink)
    axes.minorticks_off()
    axes.set_xlabel(caption, color=ink)
    axes.set_yticks(range(len(rows)), rows, color=ink)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="both", color=lines, linewidth=0.8)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    legend = figure.legend(loc="outside upper center", ncols=len(STYLES), frameon=False)
    for text in legend.get_texts():
        text.set_color(ink)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def main() -> None:
    """Writes every plot in every scheme."""
    source = newest()
    content = json.loads(source.read_text("utf-8"))
    machine = content[0]["machine"]
    caption = (
        f"median time, as a multiple of maxmod's (log scale); {machine['processors']} cores of "
        f"an {machine['cpu'].split(' (')[0]}, {machine['date'][:10]}"
    )
    for name, benchmarks in PLOTS.items():
        for scheme in SCHEMES:
            path = FOLDER / "pages" / "images" / f"{name}_{scheme}.svg"
            path.parent.mkdir(exist_ok=True)
            draw(ratios(content, benchmarks), caption, scheme, path)
            print(path.relative_to(FOLDER.parent))


if __name__ == "__main__":
    main()

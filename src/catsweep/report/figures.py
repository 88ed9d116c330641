"""The pictures of report.md: the charts of report.html as PNGs, for a pull request or a paper.

Drawn by matplotlib from the same places and words as the page's SVG, in the page's colours, on white. No pyplot, so
nothing global changes.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from catsweep.report.charts import Plot
from catsweep.report.grids import Images
from catsweep.report.importance import Importance
from catsweep.report.parallel import Parallel
from catsweep.report.timeline import Timeline

INK, SOFT, LINE, WASH = "#25221e", "#6b655c", "#e7e2da", "#f1ede6"
COLOURS = {
    "front": "#2f7a74", "finished": "#2f7a74", "pruned": "#c9962c", "failed": "#bf5a41", "running": "#b9b2a7",
    "waiting": "#b9b2a7", "confirmation": "#7a5c99", "best": "#93b8b4", "dominated": "#93b8b4",
}  # fmt: skip
STYLE: Any = {
    "font.size": 9, "font.family": "DejaVu Sans", "axes.edgecolor": LINE, "axes.linewidth": 0.8,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.titlesize": 9, "axes.titlelocation": "left",
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.major.size": 0, "ytick.major.size": 0,
    "grid.color": LINE, "grid.linewidth": 0.8, "text.parse_math": False, "savefig.dpi": 160,
}  # fmt: skip
WIDE = 9.0  # inches


def charts(path: Path, plots: Sequence[Plot], columns: int = 2, height: float = 3.2, numbered: bool = False) -> None:
    """Several charts on one picture.

    Args:
        path: of the PNG.
        plots: at least one.
        columns: beside each other, fewer if there are fewer.
        height: of a row, inches.
        numbered: whether Pareto-optimal trials carry their number.
    """
    columns = min(columns, len(plots))
    rows = -(-len(plots) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE if columns > 1 else 0.62 * WIDE, height * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(plots) :]:
            axes.set_axis_off()
        for axes, plot in zip(grid, plots, strict=False):
            _plot(axes, plot, numbered)
        _save(figure, path)


def parallel(path: Path, chart: Parallel) -> None:
    """All trials across their parameters and scores."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.4 * WIDE, 4.2), layout="constrained")
        axes = figure.subplots()
        for thread in chart.threads:
            done = thread.role in ("finished", "front")
            places = [np.nan if place is None else place for place in thread.places]
            axes.plot(
                range(len(places)), places, color=COLOURS[thread.role], linewidth=2.6 if thread.winner else 1.1,
                linestyle="-" if done else "--", alpha=1 - 0.65 * thread.shade if done else 0.6,
                solid_capstyle="round",
            )  # fmt: skip
        for place, rail in enumerate(chart.rails):
            axes.axvline(place, color=INK if rail.score else "#b9b2a7", linewidth=1)
            for at, label in rail.ticks:
                box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
                axes.text(place + 0.05, at, label, fontsize=7.5, color=SOFT, va="center", bbox=box)
        names = [f"{rail.name} {rail.way}\n{rail.detail}".strip() for rail in chart.rails]
        axes.set_xticks(range(len(names)), names, rotation=20, ha="right", rotation_mode="anchor")
        axes.set_yticks([])
        axes.set_xlim(-0.3, len(names) - 0.3)
        axes.set_ylim(-0.03, 1.03)
        axes.spines[:].set_visible(False)
        _save(figure, path)


def importance(path: Path, found: Sequence[Importance], labels: Sequence[str]) -> None:
    """How much each parameter mattered, for each objective for which that can be said."""
    known = [one for one in found if one.shares]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 0.6 + 0.24 * max(len(one.shares) for one in known)), layout="constrained")
        for axes, one in zip(figure.subplots(1, len(known), squeeze=False).ravel(), known, strict=True):
            names = list(one.shares)[::-1]
            bars = axes.barh(names, [100 * one.shares[name] for name in names], color=COLOURS["finished"], height=0.55)
            axes.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=8, color=SOFT)
            axes.set_title(f"for {labels[one.objective]}")
            axes.spines[:].set_visible(False)
            axes.set_xticks([])
            axes.margins(x=0.15)
        _save(figure, path)


def timeline(path: Path, line: Timeline) -> None:
    """Who ran when."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 0.7 + 0.42 * len(line.lanes)), layout="constrained")
        axes = figure.subplots()
        for row, lane in enumerate(line.lanes):
            axes.barh(row, 100, color=WASH, height=0.8)
            for bar in lane.bars:
                axes.barh(row, bar.width, left=bar.left, color=COLOURS[bar.role], height=0.8, edgecolor="white", lw=0.5)
                if bar.width > 2.5:
                    axes.text(bar.left + bar.width / 2, row, str(bar.trial), color="white", fontsize=7.5,
                              ha="center", va="center")  # fmt: skip
        for left, width, text in line.pauses:
            axes.axvspan(left, left + width, facecolor="white", hatch="///", edgecolor=SOFT, linewidth=0, label=text)
        axes.set_yticks(range(len(line.lanes)), [f"{lane.name}, {lane.busy:.0%} busy" for lane in line.lanes])
        axes.set_xticks([at for at, _ in line.marks], [label for _, label in line.marks])
        axes.set_xlim(0, 100)
        axes.set_ylim(len(line.lanes) - 0.5, -0.5)
        axes.spines[:].set_visible(False)
        _save(figure, path)


def beside(*pages: Images, gap: int = 24) -> Images:
    """Pages beside each other on white, uint8 (H, W, 3); at least one."""
    height = max(page.shape[0] for page in pages)
    width = sum(page.shape[1] for page in pages) + gap * (len(pages) - 1)
    whole, left = np.full((height, width, 3), 255, np.uint8), 0
    for page in pages:
        whole[: page.shape[0], left : left + page.shape[1]] = page
        left += page.shape[1] + gap
    return whole


def _plot(axes: Axes, plot: Plot, numbered: bool) -> None:
    """A chart in the units of its SVG, whose y axis points down."""
    for line in plot.lines:
        dashed = line.role == "front"
        axes.plot(*zip(*line.points, strict=True), color=COLOURS[line.role], linewidth=1.2, ls="--" if dashed else "-")
    for m in plot.rug:
        axes.plot([m.x, m.x], [m.y, m.y - 9], color=COLOURS[m.role], linewidth=1.8)
    for m in plot.marks:
        colour = COLOURS[m.role if m.role in ("front", "confirmation") else "dominated"]
        axes.plot(m.x, m.y, "o", color=colour, markersize=6, markeredgecolor="white", zorder=3)
        if m.winner:
            axes.plot(m.x, m.y, "o", color="none", markersize=12, markeredgecolor=colour, markeredgewidth=1.5, zorder=3)
        if numbered and m.role == "front":
            axes.annotate(str(m.trial), (m.x, m.y), (7, 6), textcoords="offset points", color=colour, weight="bold")
    axes.set_xlim(plot.left, plot.right)
    axes.set_ylim(plot.bottom, plot.top)
    axes.set_xticks([at for at, _ in plot.x_ticks], [label for _, label in plot.x_ticks])
    axes.set_yticks([at for at, _ in plot.y_ticks], [label for _, label in plot.y_ticks])
    axes.set_xlabel(plot.x_title if plot.y_title else "")
    axes.set_title(plot.y_title or plot.title)
    axes.grid(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # a letter that the font lacks becomes a box
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(path, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.12)

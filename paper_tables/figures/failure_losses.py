"""Training loss of runs that fail on purpose, with the moment at which that was told; time of irregular widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.curves import Band, band, smooth
from paper_tables.analysis.failure_signatures import runs, title, told, width_rows
from paper_tables.analysis.intervals import Interval, mean_interval
from paper_tables.drawing.style import BLUE, GREEN, GREY, INK, RED, SPARE_COLORS, End, label_ends, panels
from paper_tables.item import Plot
from results import RunRecord

WINDOW = 5
SHADES = (BLUE, RED, GREEN, *SPARE_COLORS)
MARKS = {"reversed ranking": "o", "divergence": "^", "plateau": "s"}


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, one panel for the losses and one for the widths, or None without either."""
    lines = [(cell, found) for cell in runs(records) if (found := _band(cell)) is not None]
    points = {
        key: (_mean(rows, "step_flops_ratio"), _mean(rows, "step_time_ratio"))
        for key, rows in width_rows(records).items()
    }
    precisions = list(dict.fromkeys(precision for precision, _ in points))
    if not lines and not points:
        return None
    figure, axes = panels(bool(lines) + len(precisions), height=2.6, labels=1.75)
    if lines:
        _losses(axes[0], lines)
    for panel, precision in zip(axes[bool(lines) :], precisions, strict=True):
        _widths(panel, precision, {name: point for (own, name), point in points.items() if own == precision})
    return figure


def _band(cell: Cell) -> Band | None:
    return band([smooth(record.loss_curve, WINDOW) for record in cell.records])


def _losses(panel: Axes, lines: Sequence[tuple[Cell, Band]]) -> None:
    ends: list[End] = []
    for shade, (cell, found) in zip(SHADES, lines, strict=False):
        panel.fill_between(found.x, found.low, found.high, color=shade, alpha=0.12, linewidth=0)
        panel.plot(found.x, found.mean, color=shade, linewidth=2.0 if cell.method == "healthy" else 1.4)
        steps = [float(event.step) for event in cell.records[0].plan_history if event.step > 0]
        panel.plot(steps, np.interp(steps, found.x, found.mean), "|", color=shade, markersize=9, markeredgewidth=1.0)
        for one in told(cell):
            if one.signature is not None:
                step = one.values["step"].mean
                height = float(np.interp(step, found.x, found.mean))
                mark = MARKS.get(one.signature, "D")
                panel.plot(step, height, mark, color=shade, markeredgecolor=INK, markersize=7, zorder=5)
        ends.append((float(found.x[-1]), float(found.mean[-1]), title(cell), shade))
    panel.margins(y=0.12)
    panel.set_title("loss after the cuts (ticks), and when it was told (marks)")
    panel.set_xlabel("step")
    panel.set_ylabel("training loss (nats)")
    label_ends(panel, ends, emphasis="healthy")
    handles = [Line2D([], [], marker=mark, linestyle="", color=GREY, label=name) for name, mark in MARKS.items()]
    panel.legend(handles=handles, loc="upper right", frameon=False, fontsize=8, handletextpad=0.2)


def _mean(rows: Sequence[dict[str, Any]], field: str) -> Interval:
    return mean_interval([float(row[field]) for row in rows])


def _widths(panel: Axes, precision: str, points: dict[str, tuple[Interval, Interval]]) -> None:
    low = min(value.mean for pair in points.values() for value in pair)
    panel.plot([low, 1.0], [low, 1.0], color=GREY, linestyle=":", linewidth=1.2)
    ends: list[End] = []
    for shade, (name, (flops, time)) in zip((INK, *SHADES), points.items(), strict=False):
        width = time.half_width if time.n > 1 else 0.0
        panel.errorbar([flops.mean], [time.mean], [[width], [width]], fmt="o", color=shade, markersize=6, capsize=3)
        ends.append((flops.mean, time.mean, name, shade))
    panel.margins(0.12)
    panel.set_title(f"time of irregular widths, {precision} (dotted: as FLOPs)")
    panel.set_xlabel("FLOPs of a training step / dense")
    panel.set_ylabel("time / dense")
    label_ends(panel, ends, emphasis="")


ITEM = Plot(
    name="failure_losses",
    title="Failures on purpose",
    caption=f"Above: mean over seeds of the running mean of {WINDOW} points of the training loss; the band spans the "
    "lowest and highest seed, ticks are cuts of the first seed, a mark is the mean step at which a signature was first "
    "told. Below: a training step at several widths of one size, mean over seeds with the 95% interval.",
    experiments=("failure_signatures",),
    build=build,
    place=46,
)

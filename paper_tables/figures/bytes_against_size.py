"""Peak, average and final bytes of training against the share of the blocks that is kept in the end."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.speed import (
    Point,
    model_notes,
    points,
    shown,
)
from paper_tables.drawing.speed_panels import model_color
from paper_tables.drawing.style import label_ends, panels
from paper_tables.item import Plot
from results import RunRecord

KINDS = (
    ("peak of the run", "peak_memory_ratio"),
    ("average over the steps of the run", "mean_memory_ratio"),
    ("after the last cut", "steady_memory_ratio"),
)


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel each for peak, average and steady state, or None without such numbers."""
    found = [point for point in points(records) if _complete(point)]
    if not found:
        return None
    figure, axes = panels(len(KINDS), height=2.2, labels=1.5)
    for axis, (title, metric) in zip(axes, KINDS, strict=True):
        _draw(axis, found, metric)
        axis.set_title(title)
        axis.set_ylabel("bytes / dense peak")
    axes[-1].set_xlabel("share of the block parameters that is kept")
    return figure


def _complete(point: Point) -> bool:
    return point.cell.method == "ecospa" and all(point.mean(metric) is not None for _, metric in KINDS)


def _draw(axis: Axes, found: Sequence[Point], metric: str) -> None:
    ends = []
    for model in dict.fromkeys(point.model for point in found):
        shade = model_color(model)
        own = [point for point in found if point.model == model]
        free = sorted(((p.cell.target or 1.0, p.mean(metric) or 0.0) for p in own if not _budget(p)), reverse=True)
        within = [(p.cell.target or 1.0, p.mean(metric) or 0.0) for p in own if _budget(p)]
        if free:
            kept, values = zip((1.0, 1.0), *free, strict=True)
            axis.plot(kept, values, color=shade, marker="o", markersize=5)
            ends.append((kept[-1], values[-1], f"{shown(model)} {values[-1]:.2f}", shade))
        if within:
            axis.plot(*zip(*within, strict=True), "s", color=shade, markerfacecolor="none", markersize=7)
    axis.set_xlim(1.02, 0.98 * min(point.cell.target or 1.0 for point in found))
    axis.set_ylim(0, 1.08 * max(1.0, *(point.mean(metric) or 0.0 for point in found)))
    label_ends(axis, ends)


def _budget(point: Point) -> float | None:
    budget: float | None = point.protocol.get("budget")
    return budget


ITEM = Plot(
    name="bytes_against_size",
    title="What shrinking saves in memory: peak, average, end",
    caption="Against the peak of the dense model, mean over seeds. Circles: training starts dense, so the peak "
    "stays; squares: the run keeps to a budget from its first step on.",
    experiments=("training_memory",),
    build=build,
    notes=model_notes,
    place=32,
)

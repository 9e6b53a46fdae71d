"""Bytes over the steps of a model that shrinks, by what they hold; with and without a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.formats import share
from paper_tables.analysis.speed import (
    Point,
    model_notes,
    points,
    shown,
)
from paper_tables.claims.judges import HALF
from paper_tables.drawing.style import BLUE, GREEN, INK, ORANGE, PINK, End, label_ends, panels
from paper_tables.item import Plot
from results import RunRecord

HELD = (("weights", BLUE), ("gradients", ORANGE), ("optimizer", GREEN))
ACTIVATIONS = ("activations", PINK)


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel per model and budget, first seed, half of the blocks kept; None without a record of steps."""
    found = [
        point
        for point in points(records)
        if point.cell.method == "ecospa" and point.cell.target == HALF and point.cell.records[0].payload.get("steps")
    ]
    if not found:
        return None
    columns = min(2, len(found))
    figure, axes = panels(len(found), height=1.9, columns=columns, labels=1.35)
    for place, (axis, point) in enumerate(zip(axes, found, strict=True)):
        ends = _draw(axis, point)
        budget = point.protocol.get("budget")
        axis.set_title(f"{shown(point.model)}, {'no budget' if budget is None else f'budget {share(budget)}'}")
        if (place + 1) % columns == 0:  # neighbours hold the same, and have no room for labels between them
            label_ends(axis, ends)
        if place % columns == 0:
            axis.set_ylabel("MB")
    for axis in axes[-columns:]:
        axis.set_xlabel("step")
    return figure


def _draw(axis: Axes, point: Point) -> list[End]:
    record = point.cell.records[0]
    rows = record.payload["steps"]
    steps = np.arange(1, len(rows) + 1)
    below, ends = np.zeros(len(rows)), list[End]()
    peaks = np.array([row["peak"] for row in rows]) / 1e6
    for name, shade in (*HELD, ACTIVATIONS):
        # gradients come while activations go, so at the peak not all of both are there
        above = peaks if name == "activations" else below + np.array([row[name] for row in rows]) / 1e6
        above = np.minimum(np.maximum(above, below), np.maximum(peaks, below))
        axis.fill_between(steps, below, above, step="mid", color=shade, alpha=0.75, linewidth=0)
        ends.append((float(steps[-1]), float(below[-1] + above[-1]) / 2, f"{name} {above[-1] - below[-1]:.3g}", shade))
        below = above
    for name, style in (("dense_peak_memory", "--"), ("memory_limit", ":")):
        if name in record.metrics:
            axis.axhline(record.metrics[name].value / 1e6, color=INK, linewidth=1.2, linestyle=style)
    for event in record.plan_history[1:]:
        axis.axvline(event.step + 0.5, color=INK, linewidth=0.7, alpha=0.5)
    axis.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    axis.set_ylim(0, 1.08 * max(float(peaks.max()), record.metrics["dense_peak_memory"].value / 1e6))
    return ends


ITEM = Plot(
    name="memory_by_category",
    title="Where the bytes are while a model shrinks",
    caption="Peak of every step by the account of the allocator, first seed, half of the block parameters kept in "
    "the end; vertical lines are events. Dashed: the peak of the dense model; dotted: the budget. The numbers are MB "
    "in the last step. Activations are what the peak holds on top of weights, gradients and optimizer state.",
    experiments=("training_memory",),
    build=build,
    notes=model_notes,
    place=33,
)

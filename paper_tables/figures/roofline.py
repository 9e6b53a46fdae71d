"""Training steps in the roofline of their machine: operations per second against operations per byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from paper_tables.analysis.speed import (
    ALIGNED,
    Point,
    model_notes,
    points,
    shown,
)
from paper_tables.drawing.speed_panels import model_color
from paper_tables.drawing.style import GREY, label_ends, logarithmic, panels
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, first seed of every point; None without a trace."""
    traced = [point for point in points(records) if point.cell.records[0].payload.get("roofline")]
    found = [point for point in traced if point.cell.method != ALIGNED]
    if not found:
        return None
    figure, (axis,) = panels(1, height=3.6, labels=1.5, left=0.82)
    axis.set_xscale("log")
    logarithmic(axis)
    roofs = [_roofline(point)["device"] for point in found]
    arithmetic, bandwidth = (float(np.median([roof[name] for roof in roofs])) for name in ("arithmetic", "bandwidth"))
    ends: dict[str, tuple[float, float, str, str]] = {}
    reached = []
    for point in found:
        for name, sign in (("dense", "*"), ("shrunk", "o")):
            work = _roofline(point)[name]
            x, y = work["flops"] / work["bytes"], work["flops"] / work["seconds"] / 1e9
            axis.plot(x, y, sign, color=model_color(point.model), markersize=8 if sign == "*" else 5, alpha=0.8)
            reached.append(x)
            ends[point.model] = (x, y, shown(point.model), model_color(point.model))
    low, high = 0.5 * min(reached), max(2 * max(reached), 2 * arithmetic / bandwidth)
    at = np.geomspace(low, high, 200)
    axis.plot(at, np.minimum(arithmetic, bandwidth * at) / 1e9, color=GREY, linewidth=1.4)
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("FLOPs per byte")
    axis.set_ylabel("GFLOP/s")
    label_ends(axis, list(ends.values()))
    return figure


def _roofline(point: Point) -> dict[str, Any]:
    found: dict[str, Any] = point.cell.records[0].payload["roofline"]
    return found


ITEM = Plot(
    name="roofline",
    title="Roofline of training steps",
    caption="Stars: dense models; circles: shrunk ones, at all sizes and batches, first seed. The roof is made of "
    "the rates of a large matrix product and a large copy, measured in the same processes (median); operations and "
    "bytes are those of a trace, every operation reading and writing memory.",
    experiments=("training_speed",),
    build=build,
    notes=model_notes,
    place=35,
)

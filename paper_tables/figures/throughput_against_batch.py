"""Tokens per second of whole and half models against the batch: where many sequences at once stop to help."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from paper_tables.analysis.speed import (
    Point,
    model_notes,
    plain_points,
    shown,
    usual,
)
from paper_tables.claims.judges import HALF
from paper_tables.drawing.speed_panels import model_color, phase_figure
from paper_tables.drawing.style import label_ends, logarithmic
from paper_tables.item import Plot
from results import RunRecord

TEXTS = ("sequences or images at a time", "tokens per second")

Line = list[tuple[int, float, float]]


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel per phase, or None where no model was measured at two batches."""
    ours = plain_points(records)
    half = [point for point in ours if point.cell.target == HALF]
    return phase_figure(half, _lines, _draw, TEXTS, labels=1.6, left=0.95)


def _lines(found: Sequence[Point]) -> dict[str, Line]:
    """Return (batch, tokens per second of the half model, of the whole one) by model."""
    lines: dict[str, Line] = {}
    for point in usual(found):
        own, whole = point.mean("throughput"), _whole(point)
        if own is not None and whole is not None:
            lines.setdefault(point.model, []).append((point.batch, own, whole))
    return {model: sorted(line) for model, line in lines.items() if len(line) > 1}


def _whole(point: Point) -> float | None:
    """Tokens per second of the dense model; of training, from the time of its step."""
    written, own, step, whole = (
        point.mean(name) for name in ("dense_throughput", "throughput", "step_time", "dense_step_time")
    )
    if written is not None or own is None or step is None or whole is None:
        return written
    return own * step / whole


def _draw(axis: Axes, lines: dict[str, Line]) -> None:
    ends = []
    axis.set_xscale("log", base=2)
    logarithmic(axis)
    for model, line in lines.items():
        batch, own, whole = zip(*line, strict=True)
        shade = model_color(model)
        axis.plot(batch, whole, color=shade, linestyle="--", linewidth=1.1, marker="*", markersize=6)
        axis.plot(batch, own, color=shade, marker="o", markersize=5)
        ends.append((batch[-1], own[-1], f"{shown(model)} {own[-1] / whole[-1]:.2f}x", shade))
    axis.set_xticks(sorted({batch for line in lines.values() for batch, _, _ in line}))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    label_ends(axis, ends)


ITEM = Plot(
    name="throughput_against_batch",
    title="Throughput against the batch",
    caption="Half of the block parameters (circles) and the dense model (stars, dashed) in the same process; mean "
    "over seeds. At each line: how much faster the half model is at the largest batch.",
    experiments=("training_speed", "inference_speed"),
    build=build,
    notes=model_notes,
    place=30,
)

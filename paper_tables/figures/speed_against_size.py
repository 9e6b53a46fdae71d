"""Time of shrunk models against the share of their blocks that is kept, vs. what the saved FLOPs allow."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.speed import (
    Point,
    batch_of_most_sizes,
    flops_ratio,
    model_notes,
    points,
    shown,
    time_ratio,
    usual,
)
from paper_tables.drawing.speed_panels import model_color, phase_figure
from paper_tables.drawing.style import GREY, INK, label_ends
from paper_tables.item import Plot
from results import RunRecord

TEXTS = ("share of the block parameters that is kept", "time / dense model's")

Line = list[tuple[float, float, float]]


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel per phase with a line per model, or None without a measured point."""
    found = [point for point in points(records) if point.cell.method == "ecospa" and point.mode == "plain"]
    return phase_figure(found, _lines, _draw, TEXTS, labels=1.5)


def _lines(found: Sequence[Point]) -> dict[str, Line]:
    """Return (kept, time, operations) by model, at the batch that was measured at most sizes."""
    lines: dict[str, Line] = {}
    for model in dict.fromkeys(point.model for point in found):
        own = usual([point for point in found if point.model == model and time_ratio(point) is not None])
        batch = batch_of_most_sizes(own)
        line = [
            (point.mean("block_share"), time_ratio(point), flops_ratio(point)) for point in own if point.batch == batch
        ]
        complete = [(kept, time, flops) for kept, time, flops in line if None not in (kept, time, flops)]
        if complete:
            lines[model] = sorted(complete, reverse=True)  # type: ignore[arg-type]
    return lines


def _draw(axis: Axes, lines: dict[str, Line]) -> None:
    ends = []
    for model, line in lines.items():
        kept, times, flops = (list(part) for part in zip((1.0, 1.0, 1.0), *line, strict=True))
        shade = model_color(model)
        axis.plot(kept, flops, color=shade, linestyle=":", linewidth=1.1)
        axis.plot(kept, times, color=shade, marker="o", markersize=5)
        slower = [(x, y) for x, y in zip(kept, times, strict=True) if y > 1.0]
        if slower:
            axis.plot(*zip(*slower, strict=True), "x", color=INK, markersize=10)
        ends.append((kept[-1], times[-1], f"{shown(model)} {times[-1]:.2f}", shade))
    axis.axhline(1.0, color=GREY, linewidth=0.8)
    axis.set_xlim(1.02, 0.98 * min(line[-1][0] for line in lines.values()))
    axis.set_ylim(0, 1.08 * max(1.0, *(time for line in lines.values() for _, time, _ in line)))
    label_ends(axis, ends)


ITEM = Plot(
    name="speed_against_size",
    title="Is a smaller model faster?",
    caption="Time vs. that of the dense model, measured interleaved, at the batch with most sizes; mean over seeds. "
    "Dotted: the ratio of FLOPs, the least that FLOPs allow. A cross marks a model "
    "that is compressed but slower.",
    experiments=("training_speed", "inference_speed"),
    build=build,
    notes=model_notes,
    place=29,
)

"""Time of shrunk models against the share of their blocks that is kept, vs. what the saved FLOPs allow."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper_tables.analysis.intervals import Interval
from paper_tables.analysis.speed import (
    Point,
    batch_of_most_sizes,
    flops_ratio,
    model_notes,
    plain_points,
    shown,
    time_ratio,
    usual,
)
from paper_tables.drawing.speed_panels import model_color, phase_figure
from paper_tables.drawing.style import GREY, INK, label_ends, seeds
from paper_tables.item import Plot
from results import RunRecord

TEXTS = ("share of the block parameters that is kept", "time / dense model's")

Line = list[tuple[float, Interval, float]]
_ASIDE = 0.008


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel per phase with a line per model, or None without a measured point."""
    found = plain_points(records)
    return phase_figure(found, _lines, _draw, TEXTS, labels=1.5)


def _lines(found: Sequence[Point]) -> dict[str, Line]:
    """Return (kept, time, FLOPs) by model, at the batch that was measured at most sizes."""
    lines: dict[str, Line] = {}
    for model in dict.fromkeys(point.model for point in found):
        own = usual([point for point in found if point.model == model and time_ratio(point) is not None])
        batch = batch_of_most_sizes(own)
        line = [(point.mean("block_share"), _time(point), flops_ratio(point)) for point in own if point.batch == batch]
        complete = [(kept, time, flops) for kept, time, flops in line if None not in (kept, time, flops)]
        if complete:
            lines[model] = sorted(complete, key=lambda part: -part[0])  # type: ignore[arg-type]
    return lines


def _time(point: Point) -> Interval | None:
    """Return the ratio of times with its interval; of an inverse r = 1/s half the width is that of s, over s^2."""
    mean = time_ratio(point)
    if mean is None:
        return None
    measured = point.cell.interval("step_time_ratio" if point.phase == "training" else "throughput_ratio")
    assert measured is not None  # time_ratio is made from it
    scale = 1.0 if point.phase == "training" else mean**2
    return Interval(mean, scale * measured.half_width, measured.n)


def _draw(axis: Axes, lines: dict[str, Line]) -> None:
    ends, points = [], [part for line in lines.values() for part in line]
    for place, (model, line) in enumerate(lines.items()):
        # Side by side, or the intervals of models of one size would hide one another.
        aside = _ASIDE * (place - (len(lines) - 1) / 2)
        shade, kept = model_color(model), [1.0, *(part[0] - aside for part in line)]
        axis.plot(kept, [1.0, *(flops for *_, flops in line)], color=shade, linestyle=":", linewidth=1.3)
        times = [1.0, *(time.mean for _, time, _ in line)]
        widths = [0.0, *(time.half_width if time.n > 1 else 0.0 for _, time, _ in line)]
        axis.errorbar(kept, times, widths, color=shade, fmt="o-", markersize=4.5, capsize=3, elinewidth=1.1)
        slower = [(x, y) for x, y in zip(kept, times, strict=True) if y > 1.0]
        if slower:
            axis.plot(*zip(*slower, strict=True), "x", color=INK, markersize=10)
        ends.append((kept[-1], times[-1], f"{shown(model)} {times[-1]:.2f}", shade))
    axis.axhline(1.0, color=GREY, linewidth=0.8)
    smallest = min(kept for kept, _, _ in points)
    axis.set_xlim(1.02, smallest - 0.03 * (1 - smallest))
    axis.set_ylim(0, 1.08 * max(1.0, *(time.mean + (time.n > 1) * min(time.half_width, 1.0) for _, time, _ in points)))
    _explain(axis, seeds(time for _, time, _ in points))
    label_ends(axis, ends)


def _explain(axis: Axes, measured: str) -> None:
    """Write what solid and dotted lines are into the corner below them: a time is far above zero."""
    handles = [
        Line2D([], [], color=INK, marker="o", markersize=4.5, label=f"measured time, {measured}"),
        Line2D([], [], color=INK, linestyle=":", label="FLOPs alone"),
    ]
    axis.legend(handles=handles, loc="lower left", frameon=False, fontsize=8, handlelength=2.4, labelspacing=0.3)


ITEM = Plot(
    name="speed_against_size",
    title="Is a smaller model faster?",
    caption="Time vs. that of the dense model, measured interleaved, at the batch with most sizes; mean over seeds "
    "with the 95% interval. Dotted: the ratio of FLOPs, the least that FLOPs allow where the dense model's "
    "widths are aligned, as a LLaMA's of 5461 are not (table training_speed). A cross marks a model that is compressed "
    "but slower.",
    experiments=("training_speed", "inference_speed"),
    build=build,
    notes=model_notes,
    place=29,
)

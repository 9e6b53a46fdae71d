"""Time of half models against the length of the text: attention between tokens shrinks with the heads alone."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from paper_tables.analysis.speed import (
    Point,
    flops_ratio,
    model_notes,
    plain_points,
    shown,
    time_ratio,
)
from paper_tables.claims.judges import HALF
from paper_tables.drawing.speed_panels import model_color, phase_figure
from paper_tables.drawing.style import GREY, label_ends
from paper_tables.item import Plot
from results import RunRecord

TEXTS = ("tokens of the prefill", "time / dense model's")

Line = list[tuple[int, float, float]]


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel per phase, or None where no model was measured at two lengths."""
    ours = plain_points(records)
    single = [point for point in ours if point.cell.target == HALF and point.batch == 1]
    return phase_figure(single, _lines, _draw, TEXTS, labels=1.5)


def _lines(found: Sequence[Point]) -> dict[str, Line]:
    """Return (tokens, time, operations) by model."""
    lines: dict[str, Line] = {}
    for point in found:
        time, flops = time_ratio(point), flops_ratio(point)
        if time is not None and flops is not None:
            lines.setdefault(point.model, []).append((point.length, time, flops))
    return {model: sorted(line) for model, line in lines.items() if len(line) > 1}


def _draw(axis: Axes, lines: dict[str, Line]) -> None:
    ends = []
    axis.set_xscale("log", base=2)
    for model, line in lines.items():
        lengths, times, flops = zip(*line, strict=True)
        shade = model_color(model)
        axis.plot(lengths, flops, color=shade, linestyle=":", linewidth=1.1)
        axis.plot(lengths, times, color=shade, marker="o", markersize=5)
        ends.append((lengths[-1], times[-1], f"{shown(model)} {times[-1]:.2f}", shade))
    axis.axhline(1.0, color=GREY, linewidth=0.8)
    axis.set_ylim(0, 1.08 * max(1.0, *(time for line in lines.values() for _, time, _ in line)))
    axis.set_xticks(sorted({length for line in lines.values() for length, _, _ in line}))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    label_ends(axis, ends)


ITEM = Plot(
    name="speed_against_length",
    title="Does a half model stay faster on long texts?",
    caption="One text at a time, half of the block parameters, time against that of the dense model in the same "
    "process; mean over seeds. Dotted: the ratio of FLOPs, attention between tokens counted.",
    experiments=("inference_speed",),
    build=build,
    notes=model_notes,
    place=31,
)

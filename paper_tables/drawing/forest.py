"""Forest plots: one row per method with its mean and interval, so that nothing covers anything.

An interval that leaves the axis ends in an arrow with its end in numbers: one wide row must not press all others flat.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from paper_tables.analysis.intervals import Interval
from paper_tables.drawing.style import PAPER, color, marker
from paper_tables.methods import label

ROW = 0.26  # inches
_FAR = 7.0  # times the median distance of an end from the median of all
_MARGIN = 0.06
_SMALL = 7.5


@dataclass(frozen=True)
class Row:
    """A row: `text` stands right of it; `hollow` is a marker that is not filled."""

    method: str
    interval: Interval
    text: str = ""
    hollow: bool = False


def limits(intervals: Sequence[Interval], zero: bool = False) -> tuple[float, float]:
    """Return the limits of an axis that holds nearly all of the intervals, and zero where that is asked for.

    An end that is further from the median of all ends than _FAR times the median distance is left outside.
    """
    ends = [end for interval in intervals for end in bounds(interval) if math.isfinite(end)]
    if not ends:
        return 0.0, 1.0
    middle = statistics.median(ends)
    near = _FAR * statistics.median(abs(end - middle) for end in ends)
    inside = [end for end in ends if abs(end - middle) <= near] + [0.0] * zero
    low, high = min(inside), max(inside)
    margin = _MARGIN * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def bounds(interval: Interval) -> tuple[float, float]:
    """Return the ends of a bar: a single seed has no interval to draw."""
    return (interval.low, interval.high) if interval.n > 1 else (interval.mean, interval.mean)


def forest(
    panel: Axes, rows: Sequence[Row], span: tuple[float, float], header: str = "", number: str = "{:.3g}"
) -> None:
    """Draw `rows` from above into an empty panel.

    Args:
        panel: with room for names on its left and for the rows' texts on its right.
        rows: the first one on top.
        span: limits of the axis, see `limits`.
        header: above the texts.
        number: format of an end that lies outside.
    """
    panel.set_xlim(*span)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    for place, row in enumerate(rows):
        _draw(panel, place, row, number)
        _beside(panel, row.text, place, bold=row.method == "ecospa")
    _beside(panel, header, -0.95)
    panel.set_yticks(range(len(rows)), [label(row.method) for row in rows])
    for tick, row in zip(panel.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.method == "ecospa" else "normal")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)


def _beside(panel: Axes, text: str, place: float, bold: bool = False) -> None:
    if text:
        panel.annotate(
            *(text, (1.04, place)),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            fontweight="bold" if bold else "normal",
            annotation_clip=False,
        )


def _draw(panel: Axes, place: int, row: Row, number: str) -> None:
    (left, right), (low, high), shade = panel.get_xlim(), bounds(row.interval), color(row.method)
    panel.plot([max(low, left), min(high, right)], [place, place], color=shade, linewidth=1.6, solid_capstyle="butt")
    for end, limit, arrow, side in ((low, left, "<", "left"), (high, right, ">", "right")):
        outside = end < limit if arrow == "<" else end > limit
        if not outside:
            panel.plot([end], [place], "|", color=shade, markersize=7)
            continue
        panel.plot([limit], [place], arrow, color=shade, markersize=6, clip_on=False, zorder=4)
        panel.annotate(
            *(number.format(end), (limit, place)),
            xytext=(4 if side == "left" else -4, 3),
            textcoords="offset points",
            ha=side,
            fontsize=_SMALL,
        )
    if left <= row.interval.mean <= right:
        look = {"color": shade, "markerfacecolor": PAPER if row.hollow else shade, "markersize": 6.5, "zorder": 3}
        panel.plot([row.interval.mean], [place], marker(row.method), **look)

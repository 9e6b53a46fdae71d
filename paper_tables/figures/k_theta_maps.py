"""Heat maps of perplexity over K and theta, one per stage: is a larger theta better, is a smaller K?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from paper_tables.analysis.formats import share
from paper_tables.analysis.intervals import Interval
from paper_tables.analysis.k_theta_grid import STAGES, Point, stages
from paper_tables.drawing.heat_map import color_bar, heat_map
from paper_tables.drawing.style import panels, seeds
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one map per stage, or None without a perplexity at any K and theta."""
    drawn = {name: scored for name, stage in stages(records).items() if (scored := _scored(stage.points))}
    if not drawn:
        return None
    figure, axes = panels(len(drawn), height=1.8, labels=1.35)
    for panel, (name, scored) in zip(axes, drawn.items(), strict=True):
        _draw(figure, panel, scored)
        panel.set_title(f"{STAGES.get(name, name)}, {seeds(found for _, found in scored)}")
        panel.set_ylabel("K")
    axes[-1].set_xlabel("theta")
    return figure


def _scored(points: Sequence[Point]) -> list[tuple[Point, Interval]]:
    return [(point, found) for point in points if (found := point.cell.interval("perplexity")) is not None]


def _draw(figure: Figure, panel: Axes, scored: Sequence[tuple[Point, Interval]]) -> None:
    """Draw a map with K upwards and its colour bar."""
    rows = sorted({point.top_k for point, _ in scored}, reverse=True)
    columns = sorted({point.theta for point, _ in scored})
    means, halves = (np.full((len(rows), len(columns)), np.nan) for _ in range(2))
    for point, found in scored:
        place = rows.index(point.top_k), columns.index(point.theta)
        means[place], halves[place] = found.mean, found.half_width if found.n > 1 else np.nan
    image = heat_map(
        *(panel, means, [share(value) for value in rows], [share(value) for value in columns]),
        norm=_norm([found for _, found in scored]),
        text="{:.2f}".format,
        spread=halves,
    )
    color_bar(figure, [panel], image, "perplexity per token")


def _norm(found: Sequence[Interval]) -> Normalize:
    """Return shades from the lowest to the highest mean, over at least the median width of an interval.

    A scale of the means alone would show noise as a pattern.
    """
    low, high = min(each.mean for each in found), max(each.mean for each in found)
    widths = [each.half_width for each in found if each.n > 1]
    room = max(0.0, 2 * statistics.median(widths) - (high - low)) / 2 if widths else 0.0
    return Normalize(low - room, high + room) if high + room > low - room else Normalize(low - 0.5, high + 0.5)


ITEM = Plot(
    name="k_theta_maps",
    title="Perplexity over K and theta",
    caption="Mean over seeds ± half the width of the 95% interval; each map has its own scale, at least as wide as an "
    "interval, so that what cannot be told apart looks alike. Upwards more pairs share an event, to the right a cut "
    "takes less of a pair; all end at the same size.",
    experiments=("k_theta_sweep",),
    build=build,
    place=5,
)

"""Heat maps of perplexity over K and theta, one per stage: is a larger theta better, is a smaller K?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.formats import share
from paper_tables.analysis.intervals import Interval
from paper_tables.analysis.k_theta_grid import STAGES, Point, stages
from paper_tables.drawing.heat_map import ON_DARK, ON_LIGHT
from paper_tables.drawing.style import panels
from paper_tables.item import Plot
from results import RunRecord

_DARK = 0.55
"""Above this share of the colour scale the ink is too dark to be read."""


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one map per stage, or None without a perplexity at any K and theta."""
    drawn = {name: scored for name, stage in stages(records).items() if (scored := _scored(stage.points))}
    if not drawn:
        return None
    figure, axes = panels(len(drawn), height=1.95, columns=2, labels=0.1)
    for panel, (name, scored) in zip(axes, drawn.items(), strict=True):
        _draw(panel, scored)
        panel.set_title(STAGES.get(name, name))
        panel.set_xlabel("theta")
        panel.set_ylabel("K")
    return figure


def _scored(points: Sequence[Point]) -> list[tuple[Point, Interval]]:
    return [(point, found) for point in points if (found := point.cell.interval("perplexity")) is not None]


def _draw(panel: Axes, scored: Sequence[tuple[Point, Interval]]) -> None:
    rows, columns = (sorted({getattr(point, name) for point, _ in scored}) for name in ("top_k", "theta"))
    grid = np.full((len(rows), len(columns)), np.nan)
    for point, found in scored:
        grid[rows.index(point.top_k), columns.index(point.theta)] = found.mean
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    panel.pcolormesh(np.arange(len(columns) + 1), np.arange(len(rows) + 1), grid, cmap="Blues", vmin=low, vmax=high)
    for point, found in scored:
        dark = high > low and (found.mean - low) / (high - low) > _DARK
        text = f"{found.mean:.2f}" + (f"\n± {found.half_width:.2f}" if found.n > 1 else "")
        place = (columns.index(point.theta) + 0.5, rows.index(point.top_k) + 0.5)
        panel.text(*place, text, ha="center", va="center", fontsize=8.5, color=ON_DARK if dark else ON_LIGHT)
    panel.set_xticks(np.arange(len(columns)) + 0.5, [share(value) for value in columns])
    panel.set_yticks(np.arange(len(rows)) + 0.5, [share(value) for value in rows])
    panel.tick_params(length=0)
    panel.grid(False)


ITEM = Plot(
    name="k_theta_maps",
    title="Perplexity over K and theta",
    caption="Mean over seeds ± half the width of the 95% interval; darker is worse, each map on its own scale. Upwards "
    "more pairs share an event, to the right a cut takes less of a pair; all end at the same size.",
    experiments=("k_theta_sweep",),
    build=build,
    place=5,
)

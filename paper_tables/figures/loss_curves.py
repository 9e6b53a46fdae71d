"""Training loss over steps, one panel per target share, with EcoSpa's shrink events marked on its curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.cells import Cell, compare, label
from paper_tables.curves import Band, at_target, band, smooth
from paper_tables.formats import share
from paper_tables.item import Plot
from paper_tables.style import color, label_ends, line_style, panels
from results import RunRecord

WINDOW = 5


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without a loss curve at any target."""
    comparison = compare(records)
    drawn = {target: bands for target in comparison.targets if (bands := _bands(at_target(comparison, target)))}
    if not drawn:
        return None
    figure, axes = panels(len(drawn), height=3.0)
    for panel, (target, bands) in zip(axes, drawn.items(), strict=True):
        _draw(panel, bands)
        panel.set_title(f"{share(target)} of the block parameters kept")
        panel.set_ylabel("training loss (nats)")
    axes[-1].set_xlabel("step")
    return figure


def _bands(cells: Sequence[Cell]) -> list[tuple[Cell, Band]]:
    made = ((cell, band([smooth(record.loss_curve, WINDOW) for record in cell.records])) for cell in cells)
    return [(cell, found) for cell, found in made if found is not None]


def _draw(panel: Axes, bands: Sequence[tuple[Cell, Band]]) -> None:
    for cell, found in bands:
        ours = cell.method == "ecospa"
        panel.fill_between(found.x, found.low, found.high, color=color(cell.method), alpha=0.15, linewidth=0)
        panel.plot(
            *(found.x, found.mean, line_style(cell.method)),
            color=color(cell.method),
            linewidth=2.2 if ours else 1.3,
            zorder=3 if ours else 2,
        )
        if ours:
            events = [event.step for event in cell.records[0].plan_history if event.step > 0]
            inside = [float(step) for step in events if found.x[0] <= step <= found.x[-1]]
            panel.plot(
                inside,
                np.interp(inside, found.x, found.mean),
                "|",
                color=color(cell.method),
                markersize=12,
                markeredgewidth=1.1,
                zorder=4,
            )
    # The first steps fall from the logarithm of the vocabulary and would flatten everything that can be compared.
    tails = [found.mean[len(found.x) // 6 :] for _, found in bands]
    low, high = min(float(tail.min()) for tail in tails), max(float(tail.max()) for tail in tails)
    panel.set_ylim(low - 0.06 * (high - low), high + 0.04 * (high - low))
    ends = [(float(f.x[-1]), float(f.mean[-1]), label(cell.method), color(cell.method)) for cell, f in bands]
    label_ends(panel, ends)


ITEM = Plot(
    name="loss_curves",
    title="Training loss",
    caption=f"Mean over seeds of the running mean of {WINDOW} points; the band spans the lowest and highest seed. "
    "Ticks on EcoSpa's line are its shrink events.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    place=3,
)

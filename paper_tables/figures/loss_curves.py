"""Training loss over steps of every experiment that trains, compared with the dense model's at the same step.

EcoSpa's shrink events are marked. Losses of one step scatter more than methods differ, but all methods see the same
batches: the difference to the dense model with the same seed is what shows them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.curves import Band, Panel, Points, band, pair_notes, panels_of, smooth
from paper_tables.drawing.style import color, label_ends, line_style, panels
from paper_tables.item import Plot
from paper_tables.methods import label
from results import RunRecord

WINDOW = 5
Bands = Sequence[tuple[Cell, Band]]


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without a loss curve."""
    drawn = [(panel.title, bands, what) for panel in panels_of(records) for bands, what in _panels(panel)]
    if not drawn:
        return None
    figure, axes = panels(len(drawn), height=2.6)
    for axis, (title, bands, what) in zip(axes, drawn, strict=True):
        _draw(axis, bands)
        axis.set_title(title)
        axis.set_ylabel(what)
        axis.set_xlabel("step")
    return figure


def _panels(panel: Panel) -> list[tuple[Bands, str]]:
    """Return the losses of a panel, and their differences to the dense model's where that was trained too."""
    found: list[tuple[Bands, str]] = [(_bands(panel.cells, {}), "training loss (nats)")]
    dense = next((cell for cell in panel.cells if cell.method == "dense"), None)
    if dense is not None and len(panel.cells) > 1:
        base = {record.seed: record.loss_curve for record in dense.records}
        found.append(
            (_bands([cell for cell in panel.cells if cell is not dense], base), "loss minus dense (0.001 nats)")
        )
    return [(bands, what) for bands, what in found if bands]


def _bands(cells: Sequence[Cell], base: Mapping[int, Points]) -> Bands:
    """Return every cell with its mean curve; less the curve of its seed in `base`, unless that is empty."""
    made = []
    for cell in cells:
        curves = [record.loss_curve for record in cell.records if not base or record.seed in base]
        if base:
            pairs = [(record.loss_curve, base[record.seed]) for record in cell.records if record.seed in base]
            curves = [tuple(_less(own, other)) for own, other in pairs]
        made.append((cell, band([smooth(curve, WINDOW) for curve in curves])))
    return [(cell, found) for cell, found in made if found is not None]


def _less(own: Points, other: Points) -> list[tuple[int, float]]:
    """Return one curve less another, in thousandths, at the steps that both have."""
    known = dict(other)
    return [(int(step), 1000 * (loss - known[step])) for step, loss in own if step in known]


def _draw(axis: Axes, bands: Bands) -> None:
    for cell, found in bands:
        ours = cell.method == "ecospa"
        axis.fill_between(found.x, found.low, found.high, color=color(cell.method), alpha=0.08, linewidth=0)
        axis.plot(
            *(found.x, found.mean, line_style(cell.method)),
            color=color(cell.method),
            linewidth=2.2 if ours else 1.3,
            zorder=3 if ours else 2,
        )
        if ours:
            _mark_events(axis, cell, found)
    # The first steps fall from the logarithm of the vocabulary and would flatten everything that can be compared.
    tails = [found.mean[len(found.x) // 6 :] for _, found in bands]
    low, high = min(float(found.mean.min()) for _, found in bands), max(float(tail.max()) for tail in tails)
    margin = 0.06 * (high - low) or 0.5
    axis.set_ylim(low - margin, high + margin)
    ends = [(float(f.x[-1]), float(f.mean[-1]), label(cell.method), color(cell.method)) for cell, f in bands]
    label_ends(axis, ends)


def _mark_events(axis: Axes, cell: Cell, found: Band) -> None:
    events = [event.step for event in cell.records[0].plan_history if event.step > 0]
    inside = [float(step) for step in events if found.x[0] <= step <= found.x[-1]]
    axis.plot(
        *(inside, np.interp(inside, found.x, found.mean), "|"),
        color=color(cell.method),
        markersize=12,
        markeredgewidth=1.1,
        zorder=4,
    )


ITEM = Plot(
    name="loss_curves",
    title="Training loss",
    caption=f"Mean over seeds of the running mean of {WINDOW} points; the band spans the lowest and highest seed. "
    "Below or beside it the same less the dense model's loss on the same batches. Ticks on EcoSpa's line are its "
    "shrink events.",
    experiments=(),
    build=build,
    notes=pair_notes,
    place=61,
    each=True,
)

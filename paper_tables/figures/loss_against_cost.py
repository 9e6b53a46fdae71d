"""Loss against what it costs: training FLOPs, average size over the run, final size; every method and control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from paper_tables.analysis.average_size_law import AVERAGE, LOSS, above_line, mean_line
from paper_tables.analysis.cells import Cell, compare
from paper_tables.analysis.curves import at_target
from paper_tables.analysis.formats import share
from paper_tables.analysis.intervals import Interval
from paper_tables.analysis.precondition import SEEDS_NEEDED
from paper_tables.drawing.forest import bounds, limits
from paper_tables.drawing.style import GREY, color, key, marker, panels, seeds
from paper_tables.drawing.swarm import swarm
from paper_tables.item import Plot
from paper_tables.methods import label
from results import RunRecord

COSTS = {
    "run_flops": "training FLOPs",
    AVERAGE: "block parameters, mean over the run",
    "block_parameters_nonzero": "block parameters at the end, non-zero",
}
"""Metric -> name of a panel, all on logarithmic axes."""
OURS = "ecospa"
_MARGIN, _MARKER = 0.18, 0.04
"""Free share of the range of costs at either end; size of a marker as a share of a panel."""
_FEW, _MANY = (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel per cost that was measured, at the smallest target share; None without a loss and a cost."""
    comparison = compare(records)
    target = min(comparison.targets, default=None)
    cells = [cell for cell in at_target(comparison, target) if cell.interval(LOSS) is not None]
    costs = [metric for metric in COSTS if any(_cost(cell, metric) is not None for cell in cells)]
    if not costs:
        return None
    losses = {cell.method: loss for cell in cells if (loss := cell.interval(LOSS)) is not None}
    span = _span([loss if loss.n >= SEEDS_NEEDED else replace(loss, half_width=0.0) for loss in losses.values()])
    figure, axes = panels(len(costs), height=2.7, labels=2.3)
    for panel, metric in zip(axes, costs, strict=True):
        panel.set_ylim(*span)
        _points(panel, cells, metric)
        panel.set_xlabel(COSTS[metric])
        panel.set_ylabel("loss (nats per token)")
        if metric == AVERAGE:
            _law(panel, cells)
    kept = "" if target is None else f"{share(target)} of the blocks kept; "
    axes[0].set_title(kept + seeds(losses.values()))
    ordered = sorted(losses, key=lambda name: -losses[name].mean)
    key(axes[0], [(name, label(name)) for name in ordered], lines=False)
    return figure


def _cost(cell: Cell, metric: str) -> Interval | None:
    """Return a cost that a logarithmic axis can show."""
    found = cell.interval(metric)
    return found if found is not None and found.mean > 0 else None


def _span(losses: Sequence[Interval]) -> tuple[float, float]:
    """Return the limits of the losses: every mean is inside, and every interval but a few that are far wider."""
    low, high = limits(losses)
    means = [loss.mean for loss in losses]
    room = 0.08 * (max(means) - min(means))
    return min(low, min(means) - room), max(high, max(means) + room)


def _points(panel: Axes, cells: Sequence[Cell], metric: str) -> None:
    """Draw the methods with the intervals of their losses; what would cover another stands next to it."""
    found = [
        (cell, math.log(cost.mean), loss)
        for cell in cells
        if (cost := _cost(cell, metric)) is not None and (loss := cell.interval(LOSS)) is not None
    ]
    logs = [cost for _, cost, _ in found]
    room = _MARGIN * (max(logs) - min(logs)) or 0.5
    left, right = min(logs) - room, max(logs) + room
    low, high = panel.get_ylim()
    shares = [((cost - left) / (right - left), (loss.mean - low) / (high - low)) for _, cost, loss in found]
    ours = next((place for place, (cell, *_) in enumerate(found) if cell.method == OURS), None)
    for x, (cell, _, loss) in zip(swarm(shares, _MARKER, _MARKER, ours), found, strict=True):
        down, up = bounds(loss) if loss.n >= SEEDS_NEEDED else (loss.mean, loss.mean)  # two seeds span the axis
        panel.errorbar(
            *([math.exp(left + x * (right - left))], [loss.mean]),
            yerr=[[loss.mean - down], [up - loss.mean]],
            fmt=marker(cell.method),
            color=color(cell.method),
            markersize=8 if cell.method == OURS else 6,
            elinewidth=1.0,
            capsize=2,
            zorder=4 if cell.method == OURS else 3,
        )
    panel.set_xscale("log")
    panel.set_xlim(math.exp(left), math.exp(right))
    panel.xaxis.set_major_locator(LogLocator(subs=_FEW if right - left > 3 else _MANY))
    panel.xaxis.set_major_formatter(EngFormatter())
    panel.xaxis.set_minor_locator(NullLocator())


def _law(panel: Axes, cells: Sequence[Cell]) -> None:
    """Draw the line through the models of constant size, and write how far EcoSpa lies from it."""
    line = mean_line(cells)
    if line is None:
        return
    sizes = np.geomspace(*panel.get_xlim(), 50)
    panel.plot(sizes, [line.loss(size) for size in sizes], color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    panel.set_xlim(sizes[0], sizes[-1])
    ours = next((cell for cell in cells if cell.method == OURS), None)
    text = "dashed: fit to the dense\nmodels of constant size"
    if ours is not None and (above := above_line(ours, cells)) is not None:
        low, high = (1000 * end for end in bounds(above))
        spread = f" [{low:+.0f}, {high:+.0f}]" if above.n > 1 else ""
        text += f"\n\nEcoSpa minus fit:\n{1000 * above.mean:+.0f}{spread}\n(0.001 nats per token)"
    panel.text(1.05, 0.5, text, transform=panel.transAxes, fontsize=8.5, va="center")


ITEM = Plot(
    name="loss_against_cost",
    title="Loss against cost",
    caption="Mean over seeds, from three on with the 95% interval; lower left is better; equal costs stand in a row. "
    "Final shape: a fresh model in the shape that EcoSpa ended in. Dashed: L = a + b log N through the models of "
    "constant size; by arXiv 2501.12486 a run that shrinks follows it at its average size N, and EcoSpa's distance is "
    "paired by seed.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    place=1,
)

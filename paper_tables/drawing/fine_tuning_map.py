"""Panels of a task over K and theta, for the figures of SQuAD and SST-2."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.fine_tuning_grid import SAME_SIZE, Grid, Pair, dense_cell, minus_dense, others, surface
from paper_tables.analysis.formats import quantity
from paper_tables.analysis.intervals import Interval
from paper_tables.drawing.heat_map import color_bar, heat_map
from paper_tables.drawing.style import panels
from paper_tables.methods import label
from results import RunRecord

_Panel = tuple[str, str, str, NDArray[np.float64], NDArray[np.float64] | None]  # title, unit, text, values, spread


def map_of(records: Sequence[RunRecord], grid: Grid) -> Figure | None:
    """Return a panel of the metric and, where the records tell it, panels of its distance to dense, cost and size."""
    cells = surface(records)
    shown = [panel for panel in _panels(cells, records, grid) if np.isfinite(panel[3]).any()]
    if not shown or shown[0][0] != _capital(grid.named):
        return None
    rows, columns = (sorted({pair[side] for pair in cells}) for side in (0, 1))
    figure, axes = panels(len(shown), height=1.7, labels=1.3)
    for axis, (title, unit, text, values, around) in zip(axes, shown, strict=True):
        names = [f"{k:.2f}" for k in rows], [f"{theta:.2f}" for theta in columns]
        image = heat_map(axis, values, *names, text=text.format, spread=around)
        axis.set_title(title)
        axis.set_ylabel("K")
        color_bar(figure, [axis], image, unit)
    axes[-1].set_xlabel("theta")
    return figure


def map_notes(records: Sequence[RunRecord], grid: Grid) -> tuple[str, ...]:
    """Return how many seeds are behind a cell and how far they lie apart, and the metric of the other methods."""
    found = [interval for cell in surface(records).values() if (interval := cell.interval(grid.metric)) is not None]
    if not found:
        return ()
    seeds = sorted({interval.n for interval in found})
    widths = [interval.half_width for interval in found if interval.n > 1]
    spread = f", half the width of their 95% interval {min(widths):.2g} to {max(widths):.2g}" if widths else ""
    cells = others(records)
    beside = [f"{label(cell.method)} {quantity(cell.interval(grid.metric))}" for cell in cells]
    trivial = next((quantity(cell.interval(grid.trivial)) for cell in cells if cell.interval(grid.trivial)), None)
    beside += [] if trivial is None else [f"{grid.answer} {trivial}"]
    lines = [f"Seeds per cell: {'-'.join(map(str, seeds))}{spread}."]
    lines += [f"{_capital(grid.named)} of the others: {', '.join(beside)}."] if beside else []
    return tuple(lines)


def _panels(cells: dict[Pair, Cell], records: Sequence[RunRecord], grid: Grid) -> list[_Panel]:
    dense = dense_cell(records)
    flops = None if dense is None else dense.interval("run_flops")
    own = _both(cells, lambda cell: cell.interval(grid.metric))
    less = _both(cells, lambda cell: minus_dense(cell, dense, grid))
    cost = _values(cells, lambda cell: 100 * _mean(cell, "run_flops") / flops.mean if flops else np.nan)
    title = _capital(grid.named)
    reference = "" if dense is None else f", {quantity(dense.interval(grid.metric))}"
    shown: list[_Panel] = [
        (title, f"{grid.named} (%)", "{:.1f}", *own),
        (f"{title} minus that of dense{reference}", "points", "{:.1f}", *less),
        ("training FLOPs", "of the dense run (%)", "{:.0f}%", cost, None),
    ]
    sizes = _values(cells, _kept)
    return [*shown, ("blocks kept", "of the dense blocks (%)", "{:.0f}%", sizes, None)] if _differ(sizes) else shown


def _differ(sizes: NDArray[np.float64]) -> bool:
    """Return whether not all came down to one size."""
    found = sizes[np.isfinite(sizes)]
    return bool(len(found) and np.ptp(found) > SAME_SIZE * found.mean())


def _both(
    cells: dict[Pair, Cell], measured: Callable[[Cell], Interval | None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and half widths, (K, theta) each; NaN where nothing was measured, or by one seed."""
    found = {pair: measured(cell) for pair, cell in cells.items()}
    means = {pair: np.nan if one is None else one.mean for pair, one in found.items()}
    halves = {pair: np.nan if one is None or one.n < 2 else one.half_width for pair, one in found.items()}
    return _grid(means), _grid(halves)


def _values(cells: dict[Pair, Cell], value: Callable[[Cell], float]) -> NDArray[np.float64]:
    return _grid({pair: value(cell) for pair, cell in cells.items()})


def _grid(values: dict[Pair, float]) -> NDArray[np.float64]:
    """Return (K, theta) values; NaN where there is none."""
    rows, columns = (sorted({pair[side] for pair in values}) for side in (0, 1))
    grid = np.full((len(rows), len(columns)), np.nan)
    for (k, theta), value in values.items():
        grid[rows.index(k), columns.index(theta)] = value
    return grid


def _mean(cell: Cell, metric: str) -> float:
    found = cell.interval(metric)
    return float("nan") if found is None else found.mean


def _kept(cell: Cell) -> float:
    histories = [record.plan_history for record in cell.records if record.plan_history]
    shares = [100 * history[-1].block_parameters / history[0].block_parameters for history in histories]
    return float(np.mean(shares)) if shares else float("nan")


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]

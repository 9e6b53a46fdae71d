"""F1 on SQuAD over K and theta: is EcoSpa sensitive to its own two numbers?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.formats import quantity
from paper_tables.analysis.squad_grid import (
    SAME_SIZE,
    Pair,
    others,
    surface,
)
from paper_tables.drawing.heat_map import color_bar, heat_map
from paper_tables.drawing.style import panels
from paper_tables.item import Plot
from paper_tables.methods import label
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return a panel of F1 and, where the records tell it, panels of what it took and of the size that was reached."""
    cells = surface(records)
    dense = next((cell.interval("run_flops") for cell in others(records) if cell.method == "dense"), None)
    whole = None if dense is None else dense.mean
    shown = [
        ("F1", "F1 (%)", "{:.1f}", _grid(cells, lambda cell: _mean(cell, "f1"))),
        ("training FLOPs", "of the dense run (%)", "{:.0f}%", _grid(cells, lambda cell: _share(cell, whole))),
    ]
    if _differ(sizes := _grid(cells, _kept)):
        shown.append(("blocks kept", "of the dense blocks (%)", "{:.0f}%", sizes))
    if not np.isfinite(shown[0][3]).any():
        return None
    shown = [entry for entry in shown if np.isfinite(entry[3]).any()]
    rows, columns = (sorted({pair[side] for pair in cells}) for side in (0, 1))
    figure, axes = panels(len(shown), height=1.7, labels=1.3)
    for axis, (title, unit, text, grid) in zip(axes, shown, strict=True):
        around = _grid(cells, _half_width) if title == "F1" else None
        names = [f"{k:.2f}" for k in rows], [f"{theta:.2f}" for theta in columns]
        image = heat_map(axis, grid, *names, text=text.format, spread=around)
        axis.set_title(title)
        axis.set_ylabel("K")
        color_bar(figure, [axis], image, unit)
    axes[-1].set_xlabel("theta")
    return figure


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return how many seeds are behind a cell and how far they lie apart, and the F1 of the other methods."""
    cells = [cell for cell in surface(records).values() if cell.interval("f1") is not None]
    if not cells:
        return ()
    seeds = sorted({len(cell.records) for cell in cells})
    found = [interval for cell in cells if (interval := cell.interval("f1")) is not None and interval.n > 1]
    widths = [interval.half_width for interval in found]
    spread = f", half the width of their 95% interval {min(widths):.2g} to {max(widths):.2g}" if widths else ""
    beside = [f"{label(cell.method)} {quantity(cell.interval('f1'))}" for cell in others(records)]
    lines = [f"Seeds per cell: {'-'.join(map(str, seeds))}{spread}."]
    lines += [f"F1 of the others: {', '.join(beside)}."] if beside else []
    return tuple(lines)


def _differ(sizes: NDArray[np.float64]) -> bool:
    """Return whether not all came down to one size."""
    found = sizes[np.isfinite(sizes)]
    return bool(len(found) and np.ptp(found) > SAME_SIZE * found.mean())


def _grid(cells: dict[Pair, Cell], value: Callable[[Cell], float]) -> NDArray[np.float64]:
    """Return (K, theta) values; NaN where nothing was measured."""
    rows, columns = (sorted({pair[side] for pair in cells}) for side in (0, 1))
    grid = np.full((len(rows), len(columns)), np.nan)
    for (k, theta), cell in cells.items():
        grid[rows.index(k), columns.index(theta)] = value(cell)
    return grid


def _mean(cell: Cell, metric: str) -> float:
    found = cell.interval(metric)
    return float("nan") if found is None else found.mean


def _half_width(cell: Cell) -> float:
    found = cell.interval("f1")
    return found.half_width if found is not None and found.n > 1 else float("nan")


def _share(cell: Cell, whole: float | None) -> float:
    return 100 * _mean(cell, "run_flops") / whole if whole else float("nan")


def _kept(cell: Cell) -> float:
    histories = [record.plan_history for record in cell.records if record.plan_history]
    shares = [100 * history[-1].block_parameters / history[0].block_parameters for history in histories]
    return float(np.mean(shares)) if shares else float("nan")


ITEM = Plot(
    name="k_theta_squad",
    title="F1 on SQuAD over K and theta",
    caption="EcoSpa at its own pace, mean over seeds, F1 ± half the width of the 95% interval. K: share of the pairs "
    "that an event may cut (downwards); theta: share of a pair's scores that it keeps. Below F1 stands what it took: "
    "who goes down slowly trains a larger model; and the size at the end where not all are equally large.",
    experiments=("bert_squad",),
    build=build,
    notes=notes,
    place=12,
)

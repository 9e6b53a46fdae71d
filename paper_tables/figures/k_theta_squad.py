"""F1 on SQuAD over K and theta: is EcoSpa sensitive to its own two numbers?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from paper_tables.cells import Cell, label
from paper_tables.formats import quantity
from paper_tables.heat_map import color_bar, heat_map, shared_norm
from paper_tables.item import Plot
from paper_tables.squad_surface import SURFACES, Pair, others, surface
from paper_tables.style import panels
from results import RunRecord

PACED = "ecospa_own_pace"


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel of F1 per method, and for one at its own pace a panel of the sizes that it reached."""
    cells = {method: found for method in SURFACES if (found := _with_f1(surface(records, method)))}
    if not cells:
        return None
    shown = [(label(method), method, "f1") for method in cells]
    shown += [("blocks kept at the own pace", PACED, "size")] if PACED in cells else []
    grids = [_grid(cells[method], what) for _, method, what in shown]
    norm = shared_norm([grid for grid, (_, _, what) in zip(grids, shown, strict=True) if what == "f1"])
    figure, axes = panels(len(shown), height=1.7, labels=1.3)
    for axis, grid, (title, method, what) in zip(axes, grids, shown, strict=True):
        own = cells[method]
        image = heat_map(
            axis,
            grid,
            rows=[f"{k:.2f}" for k in sorted({k for k, _ in own})],
            columns=[f"{theta:.2f}" for theta in sorted({theta for _, theta in own})],
            norm=norm if what == "f1" else None,
            text=(lambda value: f"{value:.1f}") if what == "f1" else (lambda value: f"{value:.0f}%"),
        )
        axis.set_title(title)
        axis.set_ylabel("K")
        color_bar(figure, [axis], image, "F1 (%)" if what == "f1" else "of the dense blocks (%)")
    axes[-1].set_xlabel("theta")
    return figure


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the F1 of the other methods, how many seeds are behind a cell, and how far they lie apart."""
    cells = [cell for method in SURFACES for cell in _with_f1(surface(records, method)).values()]
    if not cells:
        return ()
    seeds = sorted({len(cell.records) for cell in cells})
    widths = [cell.interval("f1") for cell in cells]
    finite = [found.half_width for found in widths if found is not None and found.n > 1]
    spread = f", half the width of their 95% interval {min(finite):.2g} to {max(finite):.2g}" if finite else ""
    beside = [f"{label(cell.method)} {quantity(cell.interval('f1'))}" for cell in others(records)]
    lines = [f"Seeds per cell: {'-'.join(map(str, seeds))}{spread}."]
    lines += [f"F1 of the others: {', '.join(beside)}."] if beside else []
    return tuple(lines)


def _with_f1(cells: dict[Pair, Cell]) -> dict[Pair, Cell]:
    return {pair: cell for pair, cell in cells.items() if cell.interval("f1") is not None}


def _grid(cells: dict[Pair, Cell], what: str) -> NDArray[np.float64]:
    """Return (K, theta) means; NaN where nothing was measured."""
    rows, columns = (sorted({pair[side] for pair in cells}) for side in (0, 1))
    grid = np.full((len(rows), len(columns)), np.nan)
    for (k, theta), cell in cells.items():
        grid[rows.index(k), columns.index(theta)] = _value(cell, what)
    return grid


def _value(cell: Cell, what: str) -> float:
    if what == "size":
        shares = [
            100 * record.plan_history[-1].block_parameters / record.plan_history[0].block_parameters
            for record in cell.records
            if record.plan_history
        ]
        return float(np.mean(shares)) if shares else float("nan")
    found = cell.interval("f1")
    return float("nan") if found is None else found.mean


ITEM = Plot(
    name="k_theta_squad",
    title="F1 on SQuAD over K and theta",
    caption="Mean over seeds, in percent. K: share of the pairs that an event may cut (downwards); theta: share of a "
    "pair's scores that it keeps. One scale of shades for all panels of F1.",
    experiments=("bert_squad",),
    build=build,
    notes=notes,
    place=12,
)

"""The shape that EcoSpa ends in: width left by layer and kind of pair, mean over seeds with their spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from paper_tables.analysis.cells import Cell, compare
from paper_tables.analysis.formats import share
from paper_tables.analysis.pair_widths import KINDS
from paper_tables.drawing.heat_map import color_bar, heat_map
from paper_tables.drawing.style import panels
from paper_tables.figures.surviving_widths import pairs_by_layer
from paper_tables.item import Plot
from results import RunRecord

_ROW = 0.38  # inches


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one map per target share of EcoSpa, or None without widths that changed."""
    found = [(cell, shapes) for cell in _cells(records) if (shapes := _shapes(cell)) is not None]
    if not found:
        return None
    layers = max(shapes.shape[1] for _, shapes in found)
    figure, axes = panels(len(found), height=_ROW * layers, labels=1.35)
    for panel, (cell, shapes) in zip(axes, found, strict=True):
        mean = shapes.mean(axis=0)
        deviation = shapes.std(axis=0, ddof=1) if len(shapes) > 1 else np.full_like(mean, np.nan)
        names = [str(layer) for layer in range(len(mean))]
        image = heat_map(
            panel, mean, names, [*KINDS.values()], norm=Normalize(0, 100), text="{:.0f}".format, spread=deviation
        )
        panel.set_title(f"{share(cell.target)} kept, {_seeds(len(shapes))}")
        panel.set_ylabel("layer")
        color_bar(figure, [panel], image, "width left (%)")
    return figure


def _cells(records: Sequence[RunRecord]) -> list[Cell]:
    return [cell for cell in compare(records).cells if cell.method == "ecospa" and cell.target is not None]


def _shapes(cell: Cell) -> NDArray[np.float64] | None:
    """Return (seeds, layers, kinds) of the width left in percent; NaN where a layer has no pair of a kind."""
    shapes = [_shape(record) for record in cell.records if len(record.plan_history) > 1]
    return np.stack(shapes) if shapes and shapes[0].size else None


def _shape(record: RunRecord) -> NDArray[np.float64]:
    dense, last = record.plan_history[0].widths, record.plan_history[-1].widths
    columns = [[100 * last.get(n, dense[n]) / dense[n] for n in pairs_by_layer(record, kind)] for kind in KINDS]
    shape = np.full((max(map(len, columns)), len(columns)), np.nan)
    for place, column in enumerate(columns):
        shape[: len(column), place] = column
    return shape


def _seeds(count: int) -> str:
    return f"n = {count} seeds ± standard deviation" if count > 1 else "one seed"


ITEM = Plot(
    name="shape_map",
    title="The shape that EcoSpa ends in",
    caption="Width of every pair at the end in percent of the dense model's, mean over seeds ± their standard "
    "deviation. A fresh model in this shape is the control `final shape`.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    place=3,
)

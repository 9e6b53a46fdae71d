"""A score of every method at each size, the best on top, with the size in numbers.

Rows instead of a plane: methods that are compared have one size, and on an axis of sizes they would stand on one
another. `loss_against_cost` has the plane, for what costs differ.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from paper_tables.analysis.cells import Cell, Comparison
from paper_tables.analysis.curves import at_target
from paper_tables.analysis.formats import quantity, share
from paper_tables.analysis.intervals import Interval
from paper_tables.drawing.forest import ROW, Row, forest, limits
from paper_tables.drawing.style import panels, seeds

SIZE = "block_parameters_nonzero"


def at_each_size(
    comparisons: Mapping[str, Comparison], metric: str, text: str, times: float = 1.0, highest: bool = False
) -> Figure | None:
    """Return a figure with one panel per model and target share; None where no cell has the score and the size.

    Args:
        comparisons: by the name of the model; it stands in the titles where there are several.
        metric: the score.
        text: its name and unit.
        times: factor of the score.
        highest: whether the highest score is the best.
    """
    found = {
        _title(model if len(comparisons) > 1 else "", target): rows
        for model, comparison in comparisons.items()
        for target in comparison.targets or (None,)
        if (rows := [row for cell in at_target(comparison, target) if (row := _row(cell, metric, times)) is not None])
    }
    if not found:
        return None
    most = max(map(len, found.values()))
    figure, axes = panels(len(found), height=0.3 + ROW * most, labels=0.95, left=2.05)
    everything = [row.interval for rows in found.values() for row in rows]
    for panel, (title, rows) in zip(axes, found.items(), strict=True):
        ordered = sorted(rows, key=lambda row: row.interval.mean, reverse=highest)
        forest(panel, ordered, limits(everything), header="in blocks")
        panel.set_title(title)
    axes[-1].set_xlabel(f"{text}, {seeds(everything)}")
    return figure


def _row(cell: Cell, metric: str, times: float) -> Row | None:
    size, score = cell.interval(SIZE), cell.interval(metric)
    if size is None or score is None:
        return None
    mean = Interval(size.mean, 0.0, size.n)
    return Row(cell.method, Interval(times * score.mean, times * score.half_width, score.n), quantity(mean, "count"))


def _title(model: str, target: float | None) -> str:
    kept = "" if target is None else f"{share(target)} of the blocks kept"
    return ", ".join(part for part in (model, kept) if part)

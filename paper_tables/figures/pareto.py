"""Perplexity of every method at each size: what a parameter buys, method by method."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.analysis.cells import compare
from paper_tables.drawing.pareto import at_each_size
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None if no cell has both numbers."""
    return at_each_size({"": compare(records)}, "perplexity", "perplexity per token")


ITEM = Plot(
    name="pareto",
    title="Perplexity at each size",
    caption="Mean over seeds with the 95% interval, the lowest on top; on the right the non-zero block parameters. "
    "An arrow ends an interval that leaves the axis.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    place=2,
)

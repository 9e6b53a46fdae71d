"""Perplexity against non-zero block parameters: what a parameter buys, method by method."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.analysis.cells import compare
from paper_tables.drawing.pareto import against_size
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None if no cell has both numbers."""
    return against_size(compare(records).cells, "perplexity", "perplexity")


ITEM = Plot(
    name="pareto",
    title="Perplexity against size",
    caption="Mean over seeds with the 95% interval; lower left is better. A line joins the target shares of a "
    "method; equal sizes are drawn side by side. The key is ordered by perplexity at the largest size.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    place=2,
)

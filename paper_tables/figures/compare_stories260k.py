"""Quality of stories260K, a LLaMA of 260 k, after one-shot compression by each method."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.drawing.compression_panels import CAPTION, pareto
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without records of this model."""
    return pareto(records, "stories260K")


ITEM = Plot(
    name="compare_stories260k",
    title="One-shot compression: stories260K, a LLaMA of 260 k",
    caption=CAPTION,
    experiments=("compare",),
    build=build,
    place=6,
)

"""Quality of a small LLaMA trained here, after one-shot compression by each method."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.drawing.compression_panels import CAPTION, pareto
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without records of this model."""
    return pareto(records, "llama")


ITEM = Plot(
    name="compare_llama",
    title="One-shot compression: a small LLaMA, trained here",
    caption=CAPTION,
    experiments=("compare",),
    build=build,
    place=6,
)

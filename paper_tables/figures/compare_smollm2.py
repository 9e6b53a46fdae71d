"""Quality of SmolLM2, a pretrained LLaMA of 135 million parameters, after one-shot compression by each method."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.drawing.compression_panels import CAPTION, pareto
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without records of this model."""
    return pareto(records, "SmolLM2-135M-Instruct")


ITEM = Plot(
    name="compare_smollm2",
    title="One-shot compression: SmolLM2-135M, a pretrained LLaMA",
    caption=CAPTION,
    experiments=("compare",),
    build=build,
    place=6,
)

"""Quality of SmolLM2, a pretrained LLaMA of 135 million parameters, after one-shot compression by each method."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.drawing.compression_panels import pareto
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without records of this model."""
    return pareto(records, "SmolLM2-135M-Instruct")


ITEM = Plot(
    name="compare_smollm2",
    title="One-shot compression: SmolLM2-135M, a pretrained LLaMA",
    caption="A row for every kind of method, EcoSpa and the dense model in each, all on one scale; mean over "
    "calibration seeds with the 95% interval, lower left is better. Size: non-zero block parameters; FLOPs: of a "
    "forward pass; latency: measured, of one sequence. A line joins the sizes of a method; a key is ordered by "
    "perplexity at the smallest. Dotted: masks, whose zeros are stored and multiplied. The worst points may lie above "
    "the panel.",
    experiments=("compare",),
    build=build,
    place=6,
)

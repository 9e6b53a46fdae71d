"""Top-1 accuracy against non-zero block parameters of DeiT, all its sizes together."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.drawing.image_classification import accuracy_against_size
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without an accuracy."""
    return accuracy_against_size(records)


ITEM = Plot(
    name="accuracy_deit_imagenet",
    title="Accuracy against size: DeiT",
    caption="Mean over seeds with the 95% interval; upper left is better. A line joins the sizes of a method, over all "
    "models and target shares.",
    experiments=("deit_imagenet",),
    build=build,
    place=23,
)

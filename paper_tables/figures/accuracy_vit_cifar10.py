"""Top-1 accuracy against non-zero block parameters of a ViT on CIFAR-10."""

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
    name="accuracy_vit_cifar10",
    title="Accuracy against size: ViT on CIFAR-10",
    caption="Mean over seeds with the 95% interval; upper left is better. A line joins the target shares of a method.",
    experiments=("vit_cifar10",),
    build=build,
    place=21,
)

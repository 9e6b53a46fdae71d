"""Top-1 accuracy of a ViT on CIFAR-10 at each size."""

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
    title="Accuracy at each size: ViT on CIFAR-10",
    caption="Mean over seeds with the 95% interval, the highest on top; on the right the non-zero block parameters. "
    "An arrow ends an interval that leaves the axis.",
    experiments=("vit_cifar10",),
    build=build,
    place=21,
)

"""DeiT from scratch: accuracy vs. size, FLOPs, time and the bytes that training holds, model by model."""

from __future__ import annotations

from collections.abc import Sequence

from paper_tables.drawing.image_classification import accuracy_table, model_notes
from paper_tables.item import Table
from results import RunRecord

_UNKNOWN = (
    "No number of EcoSpa for DeiT is known here, so this table carries no claim of the paper; what others publish for "
    "ImageNet-1k stands among the published numbers and compares with tier paper alone."
)


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the protocol of every model, and what the table cannot be compared with."""
    return (*model_notes(records), _UNKNOWN) if records else ()


ITEM = Table(
    name="deit_imagenet",
    title="DeiT from scratch",
    caption="Mean over seeds ± half the width of the 95% interval (Student's t), on whole, unaugmented images. S2ViTE "
    "stores the dense model until its last step. Step times leave out augmentation: batches are made between steps.",
    experiments=("deit_imagenet",),
    build=accuracy_table,
    notes=notes,
    place=22,
)

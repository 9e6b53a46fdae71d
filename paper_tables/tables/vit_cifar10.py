"""ViT on CIFAR-10 from scratch: accuracy vs. size, FLOPs, time and the bytes that training holds."""

from __future__ import annotations

from paper_tables.drawing.image_classification import accuracy_table, model_notes
from paper_tables.item import Table

ITEM = Table(
    name="vit_cifar10",
    title="ViT on CIFAR-10 from scratch",
    caption="Mean over seeds ± half the width of the 95% interval (Student's t), on whole, unaugmented test images. "
    "Methods that shrink follow one size-over-steps curve. Masked weights are stored and multiplied like any other. "
    "The paper's own CIFAR-10 numbers are not known.",
    experiments=("vit_cifar10",),
    build=accuracy_table,
    notes=model_notes,
    place=20,
)

"""Runs on images that are small enough for tests: a two-layer DeiT on a few dozen digits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.experiment import Cell, MethodRef, Run
from benchmarks.specs.training import ShrinkSpec, TrainingSettings, TrainingSpec
from benchmarks.specs.vision import AugmentationSpec, ImageDataSpec, ImageProtocolSpec, TeacherSpec, VisionModelSpec

STEPS = 12
EVERYTHING = AugmentationSpec(
    crop="pad", flip=0.5, policy="rand-m9-mstd0.5-inc1", erase=0.5, mixup=0.8, cutmix=1.0, smoothing=0.1
)
TEACHER = TeacherSpec("resnet10t", steps=3, batch_size=8)
PLAIN = VisionModelSpec(
    "deit_tiny_patch16_224", layers=2, width=32, heads=4, patch=4, size=8, classes=10, drop_path=0.2
)
DISTILLED = VisionModelSpec(
    "deit_tiny_distilled_patch16_224", layers=2, width=32, heads=4, patch=4, size=8, classes=10, drop_path=0.2
)


def image_run(
    method: str = "dense",
    target: float | None = None,
    *,
    model: VisionModelSpec = PLAIN,
    augmentation: AugmentationSpec = EVERYTHING,
    teacher: TeacherSpec | None = None,
    steps: int = STEPS,
    **training: Any,
) -> Run:
    """A run of a few seconds on digits."""
    rates = {"batch_size": 8, "learning_rate": 3e-3, "micro_batch_size": 8, "warmup_steps": 2, **training}
    settings = TrainingSettings(
        method=MethodRef.parse(method),
        target=target,
        shrink=ShrinkSpec(target, steps, start_step=2, end_step=10, interval=2, width_multiple=2),
        model=model,
        data=ImageDataSpec("digits", "default", train_images=40, evaluation_images=20),
        protocol=ImageProtocolSpec("test", augmentation, teacher),
        training=TrainingSpec(steps=steps, **rates),
    )
    return Run(Cell("tiny_images", "smoke", settings.method.name, settings), 0)


def mirror(folder: Path, column: str, splits: dict[str, int], format: str, size: int = 32) -> dict[str, np.ndarray]:
    """Random encoded images as the Hub has them, in Parquet files; returns their pixels by split."""
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    folder.mkdir(parents=True)
    features = datasets.Features({column: datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    made = {}
    for number, (split, count) in enumerate(splits.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        encoded = []
        for image in pixels:
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, format=format)
            encoded.append({"bytes": stream.getvalue(), "path": None})
        rows = {column: encoded, "label": [n % 10 for n in range(count)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
        made[split] = pixels
    return made

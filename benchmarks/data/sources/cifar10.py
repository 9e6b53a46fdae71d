"""CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 32x32 pixels in ten classes.

It has no validation split. Split "held-out" is the last 5,000 of the 50,000 training images, which are then not trained
on: rates are chosen there, so that the test images judge what nobody has chosen by them.

A mirror may hold them as JPEG instead of the Hub's PNG; pixels then differ slightly, and so does the fingerprint.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.data.examples import sides
from benchmarks.data.images import ImageSet, Pictures, arrays_fingerprint
from benchmarks.data.source import Source, dataset_folder, files_key, load_splits, missing_dataset

HUB_ID = "uoft-cs/cifar10"
CLASSES = 10
_MOST_HELD_OUT = 5_000
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the 50,000 training images


def load(configuration: str, split: str, tier: str, train_bytes: int | None = None) -> ImageSet:
    """All images, decoded, from the mirror or from the Hub.

    Raises:
        MissingSourceError: they are in neither.
    """
    rows, judged = sides(
        lambda names: load_splits("cifar10", HUB_ID, configuration, names, tier), split, _MOST_HELD_OUT
    )
    train, held_out = _decoded(rows), _decoded(judged)
    return ImageSet(train, held_out, CLASSES, MEAN, DEVIATION, arrays_fingerprint(train, held_out))


def _decoded(rows: Any) -> Pictures:
    pixels = np.stack([np.asarray(row["img"].convert("RGB")) for row in rows])
    return Pictures(pixels, np.array(rows["label"], dtype=np.int64))


def key(configuration: str) -> str:
    """Configuration and files of the mirror."""
    return f"{configuration};{files_key(dataset_folder(HUB_ID, configuration))}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the images cannot be loaded, or None."""
    return missing_dataset("cifar10", HUB_ID, configuration, tier)


SOURCE = Source("cifar10", load, key, missing)

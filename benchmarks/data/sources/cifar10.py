"""CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 32x32 pixels in ten classes.

It has no validation split. Split "validation" is the last 5,000 of the 50,000 training images, which are then not
trained on: rates are chosen there, so that the test images judge what nobody has chosen by them.

A mirror may hold them as JPEG instead of the Hub's PNG; pixels then differ slightly, and so does the fingerprint.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.data.images import ImageSet, Pictures, arrays_fingerprint
from benchmarks.data.source import Source, dataset_folder, files_key, load_splits, missing_dataset

HUB_ID = "uoft-cs/cifar10"
CLASSES = 10
VALIDATION = "validation"
HELD_OUT = 5_000
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the 50,000 training images


def load(configuration: str, split: str, tier: str, train_bytes: int | None = None) -> ImageSet:
    """All images, decoded, from the mirror or from the Hub.

    Raises:
        MissingSourceError: they are in neither.
        ValueError: there are too few training images to keep some of them apart.
    """
    names = ("train",) if split == VALIDATION else ("train", split)
    loaded = load_splits("cifar10", HUB_ID, configuration, names, tier)
    train = _decoded(loaded["train"])
    train, held_out = _kept_apart(train) if split == VALIDATION else (train, _decoded(loaded[split]))
    return ImageSet(train, held_out, CLASSES, MEAN, DEVIATION, arrays_fingerprint(train, held_out))


def _kept_apart(whole: Pictures) -> tuple[Pictures, Pictures]:
    """The training images without the last HELD_OUT, and those."""
    count = len(whole) - HELD_OUT
    if count < 1:
        raise ValueError(
            f"split is {VALIDATION!r}, which takes {HELD_OUT} of the training images; {len(whole)} are there"
        )
    return whole.first(count), Pictures(np.asarray(whole.pixels)[count:], whole.labels[count:])


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

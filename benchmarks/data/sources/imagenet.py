"""ImageNet-1k (ILSVRC 2012): 1.28 million images in a thousand classes; tier paper only.

167 GB to download, and as much again on disk, because `datasets` keeps what it reads in a form of its own. The Hub asks
for an agreement to its terms (log in first). Images stay encoded on disk and are decoded one by one: a recipe of 300
epochs would otherwise fetch all of them 300 times, and runs need them in any order.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from benchmarks.data.images import ImageSet, Pictures
from benchmarks.data.source import Source, dataset_folder, files_key, load_splits, missing_dataset

HUB_ID = "ILSVRC/imagenet-1k"
CLASSES = 1000
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # by which all published models normalise


class EncodedImages:
    """Images of a data set as RGB, decoded when asked for by number."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]["image"].convert("RGB")


def load(configuration: str, split: str, tier: str, train_bytes: int | None = None) -> ImageSet:
    """Both splits, not decoded, from the mirror or from the Hub.

    Raises:
        MissingSourceError: they are in neither.
    """
    loaded = load_splits("imagenet", HUB_ID, configuration, ("train", split), tier)
    labels = {name: np.array(rows["label"], dtype=np.int64) for name, rows in loaded.items()}
    train, held_out = (Pictures(EncodedImages(loaded[name]), labels[name]) for name in ("train", split))
    digest = hashlib.sha256()
    for name, rows in loaded.items():
        digest.update(f"{name} {len(rows)}\0".encode())
        digest.update(labels[name].tobytes())
        digest.update(_encoded_sizes(rows).tobytes())
    return ImageSet(train, held_out, CLASSES, MEAN, DEVIATION, digest.hexdigest())


def _encoded_sizes(rows: Any) -> np.ndarray:
    """Bytes of every encoded image, int64 (images,): tells data sets apart without reading 150 GB."""
    import pyarrow.compute as compute

    chunks = rows.data.column("image").chunks  # never joined: that would read all images
    sizes = [compute.binary_length(chunk.field("bytes")).to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate(sizes).astype(np.int64)


def key(configuration: str) -> str:
    """Configuration and files of the mirror."""
    return f"{configuration};{files_key(dataset_folder(HUB_ID, configuration))}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the images cannot be loaded, or None."""
    return missing_dataset("imagenet", HUB_ID, configuration, tier)


SOURCE = Source("imagenet", load, key, missing)

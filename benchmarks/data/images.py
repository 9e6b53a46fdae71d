"""Labelled images: small ones decoded once and kept in the work folder, large ones decoded whenever they are asked for.

What a source of images gives is an ImageSet. The kept file is named by everything that decides its content.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import source as sources
from benchmarks.specs.vision import ImageDataSpec

_LAYOUT = 1  # raise when the meaning of the kept file changes
_ENTRIES = ("train_pixels", "train_labels", "evaluation_pixels", "evaluation_labels")


class Images(Protocol):
    """Images by number, decoded when they are asked for, or all there."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of one split.

    Attributes:
        pixels: uint8 (height, width, 3) arrays or PIL images by number; one uint8 (images, height, width, 3) array
            where all have one size.
        labels: int64 (images,), classes.
    """

    pixels: Images | NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Pictures:
        """The first images; all for None.

        Raises:
            ValueError: there are fewer.
        """
        if count is None or count == len(self):
            return self
        if count > len(self):
            raise ValueError(f"{count} images are asked for and {len(self)} are there; ask for fewer, or None for all")
        head = self.pixels[:count] if isinstance(self.pixels, np.ndarray) else _Head(self.pixels, count)
        return Pictures(head, self.labels[:count])


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images to train on and to evaluate on.

    Attributes:
        train, evaluation: the two splits.
        classes: how many there are; labels are 0 .. classes - 1.
        mean, deviation: per channel, of pixels in [0, 1], by which a model's inputs are normalised.
        fingerprint: SHA-256 of what is in it.
    """

    train: Pictures
    evaluation: Pictures
    classes: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    fingerprint: str


@dataclass(frozen=True)
class _Head:
    """The first images of a sequence that is decoded lazily."""

    whole: Images
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        return self.whole[number]


def arrays_fingerprint(*splits: Pictures) -> str:
    """SHA-256 of all pixels and labels, with the boundaries of splits."""
    digest = hashlib.sha256()
    for split in splits:
        pixels = np.asarray(split.pixels)
        digest.update(f"split {pixels.shape}\0".encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
        digest.update(split.labels.tobytes())
    return digest.hexdigest()


def prepare_images(data: ImageDataSpec, split: str, tier: str, folder: Path) -> ImageSet:
    """The images of an experiment: arrays from the work folder, or made now and put there; others from their source.

    Args:
        data: which images, how many.
        split: the one to evaluate on.
        tier: of the run.
        folder: of the caches.

    Raises:
        MissingSourceError: the source is not at hand.
        ValueError: more images are asked for than there are.
    """
    origin = sources.find(data.source)
    reason = origin.missing(data.configuration, tier)
    if reason is not None:
        raise sources.MissingSourceError(reason)
    wanted: dict[str, Any] = {**asdict(data), "split": split, "layout": _LAYOUT}
    wanted |= {"key": origin.key(data.configuration)}
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / "images" / f"{data.source}-{name}.npz"
    if path.exists():
        return _read(path)
    whole: ImageSet = origin.load(data.configuration, split, tier, None)
    train, evaluation = whole.train.first(data.train_images), whole.evaluation.first(data.evaluation_images)
    if not isinstance(train.pixels, np.ndarray):
        return ImageSet(train, evaluation, whole.classes, whole.mean, whole.deviation, whole.fingerprint)
    print_of_used = arrays_fingerprint(train, evaluation)
    used = ImageSet(train, evaluation, whole.classes, whole.mean, whole.deviation, print_of_used)
    _write(path, used)
    return used


def _write(path: Path, images: ImageSet) -> None:
    """Write under another name first, so that a killed process leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}-{os.getpid()}.tmp.npz")
    numbers = json.dumps({name: getattr(images, name) for name in ("classes", "mean", "deviation", "fingerprint")})
    splits = (images.train.pixels, images.train.labels, images.evaluation.pixels, images.evaluation.labels)
    np.savez(partial, numbers=numbers, **dict(zip(_ENTRIES, splits, strict=True)))  # type: ignore[arg-type]
    partial.replace(path)


def _read(path: Path) -> ImageSet:
    with np.load(path) as kept:
        numbers = json.loads(str(kept["numbers"]))
        parts = [kept[name] for name in _ENTRIES]
    return ImageSet(
        train=Pictures(parts[0], parts[1]),
        evaluation=Pictures(parts[2], parts[3]),
        classes=numbers["classes"],
        mean=tuple(numbers["mean"]),
        deviation=tuple(numbers["deviation"]),
        fingerprint=numbers["fingerprint"],
    )

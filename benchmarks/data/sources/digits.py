"""Handwritten digits of scikit-learn (UCI, 8x8 pixels, 16 grey levels): images that need no network.

1,797 images of 43 writers; the last fifth, by other writers than most of the rest, is held out.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util

import numpy as np

from benchmarks.data.images import ImageSet, Pictures, arrays_fingerprint
from benchmarks.data.source import MissingSourceError, Source

_TRAIN = 1437  # of 1,797; as scikit-learn orders them
_GREY = 255 / 16


def load(configuration: str, split: str, tier: str, train_bytes: int | None = None) -> ImageSet:
    """The digits as uint8 (images, 8, 8, 3), grey in all three channels.

    Raises:
        MissingSourceError: scikit-learn is not installed.
    """
    reason = missing(configuration, tier)
    if reason is not None:
        raise MissingSourceError(reason)
    from sklearn.datasets import load_digits  # slow to import, and few runs need it

    digits = load_digits()
    grey = np.rint(digits.images * _GREY).astype(np.uint8)
    pixels, labels = np.repeat(grey[..., None], 3, axis=-1), digits.target.astype(np.int64)
    train, held_out = Pictures(pixels[:_TRAIN], labels[:_TRAIN]), Pictures(pixels[_TRAIN:], labels[_TRAIN:])
    middle = (0.5, 0.5, 0.5)
    return ImageSet(train, held_out, 10, middle, middle, arrays_fingerprint(train, held_out))


def key(configuration: str) -> str:
    """Version of scikit-learn."""
    return f"scikit-learn=={importlib.metadata.version('scikit-learn')}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason there are no digits, or None."""
    if importlib.util.find_spec("sklearn") is not None:
        return None
    return (
        f"source 'digits', tier {tier!r}: scikit-learn is not installed. Either pip install scikit-learn, or take tier "
        "'cpu' and its data."
    )


SOURCE = Source("digits", load, key, missing)

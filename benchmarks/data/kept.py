"""Examples that were encoded once and are kept in the work folder, named by everything that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.cache import make_once

_PLAIN = "plain"


def kept(folder: Path, name: str, wanted: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, from the folder or made now and put there.

    Args:
        folder: of the caches.
        name: for people, the beginning of the file's name.
        wanted: plain JSON that decides the content.
        make: gives arrays, and values that JSON can hold.
    """
    digest = hashlib.sha256(json.dumps(dict(wanted), sort_keys=True).encode()).hexdigest()[:16]
    path = folder / "encoded" / f"{name}-{digest}.npz"
    make_once(path, lambda partial: _write(partial, make()))
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files if key != _PLAIN}
        return {**arrays, **json.loads(str(stored[_PLAIN]))}


def _write(path: Path, content: dict[str, Any]) -> None:
    arrays = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
    plain = json.dumps({key: value for key, value in content.items() if key not in arrays})
    np.savez(path, **{_PLAIN: np.array(plain)}, **arrays)

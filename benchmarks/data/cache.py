"""Files and folders that several runs share, such as tokens or a trained model: made once, even by runs at one time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock


def make_once(path: Path, make: Callable[[Path], object]) -> None:
    """Make a file or a folder unless it is there; a process that is killed leaves nothing that looks finished.

    What an error leaves behind is removed at once, what a kill leaves behind by the next call: it may be large.

    Args:
        path: what is wanted; its name says everything that decides its content.
        make: writes it to the place that it is given, whose name ends as that of `path` does.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            partial = path.with_name(f"{path.stem}.partial{path.suffix}")
            _remove(partial)
            try:
                make(partial)
                partial.replace(path)
            finally:
                _remove(partial)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_PLAIN = "plain"


def kept(folder: Path, name: str, wanted: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of `make`, read from the folder, or made now and put there.

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
    arrays: dict[str, Any] = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
    plain = json.dumps({key: value for key, value in content.items() if key not in arrays})
    arrays[_PLAIN] = np.array(plain)
    np.savez(path, **arrays)

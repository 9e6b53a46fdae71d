"""Files and folders that several runs share, such as tokens or a trained model: made once, even by runs at one time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

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

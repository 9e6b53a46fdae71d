"""Files and folders that several runs share, such as tokens or a trained model: made once, even by runs at one time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def make_once(path: Path, make: Callable[[Path], object]) -> None:
    """Make a file or a folder unless it is there; a process that is killed leaves nothing that looks finished.

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
            make(partial)
            partial.replace(path)

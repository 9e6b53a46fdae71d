"""Checks that a call can keep what it makes, before it makes anything: a run of days must not end at a full disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.execution.plan import Plan
from benchmarks.execution.requirements import gigabytes
from results.store import Store, probe

_LEAST_RECORD = 256 * 1024
_LEAST_WORK = 64 * 1024**2
_PROBED = 1024**2


def check_room(plan: Plan, store: Store, work: Path, say: Callable[[str], None]) -> None:
    """Write and remove a file in every folder that the runs of a plan will write to, and compare the space there.

    Args:
        plan: from `make_plan`.
        store: of the records.
        work: folder of unfinished work.
        say: gets a warning where an experiment says that it takes more than is free.

    Raises:
        ValueError: a folder cannot be written to, or has too little space left for sure.
    """
    todo = [planned.run.cell.experiment for planned in plan.in_state("pending")]
    if not todo:
        return
    needed = 0
    for name in dict.fromkeys(todo):
        needed += todo.count(name) * _largest(store.folder / name)
        _probe("records", store.folder / name, links=True)
    _space("records", store.folder, needed)
    _probe("work", work, links=False)
    free = _space("work", work, _LEAST_WORK)
    for one in plan.needs:
        stated = int(1e9 * (one.tier_plan.disk or 0))
        if one.experiment in todo and stated > free + _held(work):
            say(
                f"{one.experiment} says that it takes {gigabytes(stated)} of disk, and {work} has {gigabytes(free)} "
                "left: --work FOLDER takes another disk"
            )


def _probe(option: str, folder: Path, links: bool) -> None:
    try:
        probe(folder, _PROBED, links)
    except OSError as error:
        raise ValueError(
            f"{option} is {str(folder)!r}, where nothing can be kept ({error.strerror or error}); "
            f"make it writable, free space, or choose another folder with --{option}"
        ) from error


def _space(option: str, folder: Path, needed: int) -> int:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{option} is {str(folder)!r}, which has {gigabytes(free)} left and needs {gigabytes(needed)}; "
            f"free space, or choose another folder with --{option}"
        )
    return free


def _largest(folder: Path) -> int:
    """Bytes of the largest record of an experiment."""
    return max((path.stat().st_size for path in folder.glob("*.json")), default=_LEAST_RECORD)


def _held(folder: Path) -> int:
    """Bytes that unfinished work holds already."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

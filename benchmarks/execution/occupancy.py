"""One call at a time on one experiment of a work folder: two would make the same runs in the same places.

The lock is the operating system's own (flock): it ends with the process that holds it, whatever ends that, so that no
lock stays behind. Calls for different experiments, or other tiers of one, do not meet.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from results.printable import printable

_LOOK_SECONDS = 0.2
FOLDER = "locks"


@contextmanager
def occupied(folder: Path, names: Sequence[str], say: Callable[[str], None]) -> Iterator[None]:
    """Hold parts of a work folder; wait for another call that holds one of them, and say for which.

    Args:
        folder: of unfinished work.
        names: what is held, such as "smoke-compare"; taken in one order, so that two calls cannot wait for each other.
        say: gets the lines.

    Raises:
        ValueError: the folder's file system knows no locks, or the folder cannot be written to.
    """
    with ExitStack() as held:
        for name in sorted(set(names)):
            held.enter_context(_one(folder / FOLDER / f"{name}.lock", say))
        yield


@contextmanager
def occupied_if_free(folder: Path, names: Sequence[str]) -> Iterator[bool]:
    """Hold parts of a work folder if nobody else does and the folder is there at all; gives whether they are held."""
    with ExitStack() as held:
        try:
            for name in sorted(set(names)) if folder.is_dir() else ():
                held.enter_context(_one(folder / FOLDER / f"{name}.lock", None))
        except (Timeout, ValueError):
            yield False
            return
        yield folder.is_dir()


@contextmanager
def _one(path: Path, say: Callable[[str], None] | None) -> Iterator[None]:
    """Hold one file; without `say` raise Timeout where another call does."""
    lock, holder = FileLock(path), path.with_suffix(".holder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if say is None:
                raise
            say(
                f"waiting for {_described(holder)}, which runs {path.stem} in {path.parent.parent}; "
                "Ctrl-C ends this call"
            )
            lock.acquire(poll_interval=_LOOK_SECONDS)
            say(f"{path.stem} is free, going on")
    except (OSError, RuntimeError) as error:  # a file system without locks is the latter
        if isinstance(error, Timeout):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"work is {str(path.parent.parent)!r}, where {path.name} cannot be locked ({reason}); "
                         "choose another folder with --work") from error  # fmt: skip
    try:
        _introduce(holder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _introduce(holder: Path) -> None:
    """Write who holds the lock next to it: its own file is emptied by everyone who asks for it."""
    words = " ".join(["python -m benchmarks", *sys.argv[1:]])
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}
    partial = holder.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({**who, "command": words}), encoding="utf-8")
    partial.replace(holder)


def _described(holder: Path) -> str:
    """The call that holds a lock, as far as it has introduced itself."""
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return printable(f"process {who['pid']} on {who['host']} (since {who['since']}: {who['command']})")
    except (OSError, ValueError, KeyError, TypeError):
        return "another call"

"""A folder replaced as a whole: whoever reads it, and whenever the writer dies, finds the old content or the new.

The new content is written to a hidden folder next to the target, on the same file system, brought to the disk, and
swapped with the target in one step. What lies in the target and is not ours (a tokenizer, a README, logs, the
checkpoints of a run) goes along: its files are linked into the new folder, so that even one that is open for writing
stays the same file. A hidden folder is locked while its writer lives; the next save removes those whose writer died.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ecospa.manifest import CheckpointError

_SAVING, _REPLACED = "saving", "replaced"
_AT_WORKING_FOLDER, _EXCHANGE = -100, 2
_PATIENCE = 5.0  # seconds; two renames of a live writer take far less


@contextmanager
def replacing(folder: Path, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """A new, empty folder that takes the place of another one when the block ends; nothing changes if it raises.

    Args:
        folder: the target; made if it is not there, and its parents with it.
        is_ours: whether an entry of the target, by name, goes with the old content; the others stay.

    Raises:
        CheckpointError: the target is a link, a file or in use, or the place is full or cannot be written.
    """
    target = Path(os.path.abspath(folder))
    _check(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target)
        _remove_leftovers(target)
        side, lock = _locked_folder(target)
        try:
            yield side
            _to_disk(side)
            _put_in_place(side, target, is_ours)
        finally:
            shutil.rmtree(side, ignore_errors=True)
            os.close(lock)
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be replaced ({error.strerror or error}); it is as it was. It is written beside its place "
            f"and then swapped, so {target.parent} must be writable and have room for both"
        ) from error


def recover(folder: Path) -> None:
    """Put back what was moved aside by a writer that died between two renames, where no single swap exists.

    Args:
        folder: a folder that is about to be read or replaced.
    """
    target = Path(os.path.abspath(folder))
    waited_until = time.monotonic() + _PATIENCE
    while not os.path.lexists(target) and (
        aside := sorted(target.parent.glob(f".{_plain(target.name)}.{_REPLACED}-*"))
    ):
        lock = _lock(aside[-1])
        if lock is not None:
            try:
                os.rename(aside[-1], target)
            finally:
                os.close(lock)
        elif time.monotonic() > waited_until:
            return
        else:
            time.sleep(0.01)


def _check(target: Path) -> None:
    if target.is_symlink():
        raise CheckpointError(f"{target} is a link to {target.resolve()}; give that folder itself")
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target} is a file; give a folder")
    if Path.cwd().is_relative_to(target.resolve()):
        raise CheckpointError(f"{target} holds the working folder of this process; save to a folder inside it")


def _locked_folder(target: Path) -> tuple[Path, int]:
    """A new folder next to the target, and the lock that tells others that its writer lives."""
    while True:
        side = target.parent / f".{target.name}.{_SAVING}-{secrets.token_hex(8)}"
        side.mkdir()
        try:
            lock = os.open(side, os.O_RDONLY) if os.name == "posix" else os.open(os.devnull, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another save took it for a leftover, because it was not locked yet
        if _hold(lock) and not side.is_dir():
            os.close(lock)
            continue
        if target.is_dir():
            shutil.copymode(target, side)
        return side, lock


def _lock(folder: Path) -> int | None:
    """Lock a folder until its descriptor is closed or its process dies; None if another holds it or none can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (AttributeError, OSError):  # no POSIX system, or no folder
        return None
    if _hold(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _hold(descriptor: int) -> bool:
    """Lock what is open; False where another process holds it, or the system or the file system knows no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _remove_leftovers(target: Path) -> None:
    names = [_SAVING, _REPLACED] if target.exists() else [_SAVING]
    for kind in names:
        for leftover in target.parent.glob(f".{_plain(target.name)}.{kind}-*"):
            lock = _lock(leftover)
            if lock is not None:
                shutil.rmtree(leftover, ignore_errors=True)
                os.close(lock)


def _plain(name: str) -> str:
    """A name in which no character has a meaning for glob."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _put_in_place(side: Path, target: Path, is_ours: Callable[[str], bool]) -> None:
    if not target.exists():
        os.rename(side, target)
        _sync(target.parent)
        return
    lock = _lock(target)  # the old content, too, is no leftover while it lies next to the new
    try:
        _carry_over(target, side, is_ours)
        _sync(side)
        old = _swap(side, target)
        _sync(target.parent)
        with suppress(OSError):  # the new content is in place whatever comes now
            _carry_over(old, target, is_ours)  # what was added while the swap was prepared
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


def _swap(side: Path, target: Path) -> Path:
    """Put a folder in the place of another, and say where that one is now."""
    if _exchange(side, target):
        return side
    aside = target.with_name(side.name.replace(f".{_SAVING}-", f".{_REPLACED}-"))
    os.rename(target, aside)
    try:
        os.rename(side, target)
    except OSError:
        os.rename(aside, target)
        raise
    os.rename(aside, side)  # from here on it is a leftover, never to be put back
    return side


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if rename(_AT_WORKING_FOLDER, os.fsencode(first), _AT_WORKING_FOLDER, os.fsencode(second), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _carry_over(old: Path, new: Path, is_ours: Callable[[str], bool]) -> None:
    """Link everything that is not ours into the new folder, with its folders; what is there already stays."""
    device = old.stat().st_dev
    for entry in old.iterdir():
        copy = new / entry.name
        if is_ours(entry.name):
            continue
        if entry.lstat().st_dev != device:
            raise OSError(errno.EXDEV, f"{entry} is a file system of its own", str(entry))
        if entry.is_dir() and not entry.is_symlink():
            if not os.path.lexists(copy):
                copy.mkdir()
                shutil.copystat(entry, copy)
            if copy.is_dir():
                _carry_over(entry, copy, lambda name: False)
        elif not os.path.lexists(copy):
            try:
                os.link(entry, copy, follow_symlinks=False)
            except OSError:  # some file systems have no links
                shutil.copy2(entry, copy, follow_symlinks=False)


def _to_disk(folder: Path) -> None:
    """See that every file of a folder, and the folder itself, outlives a loss of power."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # only a POSIX system opens folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

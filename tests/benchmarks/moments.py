"""Kills a call at a moment of its own life: at its n-th file operation after so many steps, or a little later.

Bound to what the call does, a moment is the same on a slow machine as on a fast one. Every process of the call writes
what it opens, makes, links, renames and removes below one folder into one trace, a line of fixed length each, and the
one whose line is due kills the call. Nothing heavy is imported here: a process may begin with this.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VARIABLE = "ECOSPA_TEST_LIFE"
STEP, RUN, FORK = "step", "run", "os.fork"
_OPERATIONS = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree", FORK}
_LINE, _ENTRY = 160, 10


@dataclass(frozen=True)
class Moment:
    """Moment at which a call is killed.

    Attributes:
        marks: marks of progress in this call that come first.
        events: lines of the trace after the last of them, or after the start.
        seconds: time after that line.
        group: all processes of the call die at once; or only the first one, and the others have to notice.
    """

    marks: int
    events: int
    seconds: float = 0.0
    group: bool = False


@dataclass(frozen=True)
class Life:
    """File in which one call writes what it does, and the moment at which it is killed.

    Attributes:
        folder: of records and work; nothing outside is traced.
        trace: file of the lines.
        mark: operation that is a mark of progress.
        moment: None lets the call live.
        call: its first process, that of the group.
    """

    folder: str
    trace: str
    mark: str
    moment: Moment | None
    call: int

    def variables(self) -> Mapping[str, str]:
        """Return the environment that passes this on to the processes of the call."""
        return {VARIABLE: json.dumps(asdict(self))}


@dataclass(frozen=True)
class Event:
    """One line of a trace."""

    process: int
    operation: str
    subject: str


def events(trace: Path) -> list[Event]:
    """The lines so far."""
    text = trace.read_text() if trace.exists() else ""
    parts = (text[start : start + _LINE].split(maxsplit=2) for start in range(0, len(text), _LINE))
    return [Event(int(process), operation, subject.strip()) for process, operation, subject in parts]


def begin() -> None:
    """Trace this process and those that it forks, where the environment asks for it."""
    global _writer
    if VARIABLE in os.environ and _writer is None:
        asked = json.loads(os.environ[VARIABLE])
        moment = None if asked["moment"] is None else Moment(**asked["moment"])
        _writer = _Writer(Life(**{**asked, "moment": moment, "call": asked["call"] or os.getpid()}))
        os.environ.update(_writer.life.variables())
        sys.addaudithook(_writer.hear)


def tell(operation: str, subject: str) -> None:
    """Write a line that is no file operation."""
    if _writer is not None:
        _writer.write(operation, subject)


class _Writer:
    def __init__(self, life: Life) -> None:
        self.life = life
        self._lines, self._marks = (
            os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT) for name in (life.trace, f"{life.trace}.marks")
        )
        self._due = False

    def hear(self, operation: str, arguments: tuple[Any, ...]) -> None:
        if operation not in _OPERATIONS:
            return
        place = arguments[0] if arguments else "-"
        if isinstance(place, str | os.PathLike):
            place = os.fspath(place)
            if os.path.isabs(place):
                # who waits opens a lock for ever, and what tries whether a folder can be written to is no progress
                if place.startswith(self.life.folder) and not place.endswith(".lock") and ".probe-" not in place:
                    self.write(operation, os.path.relpath(place, self.life.folder))
            elif operation != "open":  # a folder that is being emptied names its files alone
                self.write(operation, place)

    def write(self, operation: str, subject: str) -> None:
        line = f"{os.getpid()} {operation} {subject}"[: _LINE - 1].ljust(_LINE - 1) + "\n"
        os.write(self._lines, line.encode("ascii", "replace"))
        count = os.fstat(self._lines).st_size // _LINE
        if operation == self.life.mark:
            os.write(self._marks, str(count).rjust(_ENTRY).encode())
        moment = self.life.moment
        if moment is not None and not self._due and self._reached(moment, count):
            self._due = True
            if moment.seconds:
                threading.Thread(target=self._kill, args=(moment,), daemon=True).start()
            else:
                self._kill(moment)

    def _reached(self, moment: Moment, count: int) -> bool:
        start = 0
        if moment.marks:
            entry = os.pread(self._marks, _ENTRY, (moment.marks - 1) * _ENTRY)
            if len(entry) < _ENTRY:
                return False
            start = int(entry)
        return count >= start + moment.events

    def _kill(self, moment: Moment) -> None:
        time.sleep(moment.seconds)
        with suppress(ProcessLookupError):
            (os.killpg if moment.group else os.kill)(self.life.call, signal.SIGKILL)


_writer: _Writer | None = None

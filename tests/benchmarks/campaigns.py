"""Calls of `reproduce` that are killed, started again until they finish, and looked at after every end."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from select import select
from typing import Protocol

from benchmarks import checkpoint
from benchmarks.environment import ROOT
from paper_tables.report.render import rendered
from results.record import Metric, RunRecord
from results.store import Store
from tests.benchmarks import moments
from tests.benchmarks.moments import Event, Life, Moment

MEASURED_BY_THE_CLOCK = {"training_seconds", "step_time", "final_step_time_ratio", "peak_memory"}
PATIENCE = 900.0  # seconds, for machines that are busy


class Started(Protocol):
    """A call in progress."""

    pid: int

    def wait(self, timeout: float) -> int:
        """How it ended: its exit code, negative for a signal."""


Start = Callable[[Sequence[str], Mapping[str, str], Path], Started]
"""(words, variables, file of the output) -> a call."""


class Server:
    """Forks calls from a process that has imported everything: tests/benchmarks/killable.py."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "tests.benchmarks.killable"]
        self._process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def start(self, words: Sequence[str], variables: Mapping[str, str], output: Path) -> Started:
        """A call as a process of its own."""
        asked = {"words": list(words), "variables": dict(variables), "output": str(output)}
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(asked)}\n".encode())
        self._process.stdin.flush()
        return _Forked(self)

    def answer(self, timeout: float) -> int:
        """The next number that it says."""
        assert self._process.stdout is not None
        ready, _, _ = select([self._process.stdout], [], [], timeout)
        assert ready, "the server says nothing"
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """Leave nothing running."""
        self._process.kill()
        self._process.communicate()


class _Forked:
    def __init__(self, server: Server) -> None:
        self._server = server
        self.pid = server.answer(PATIENCE)

    def wait(self, timeout: float) -> int:
        return self._server.answer(timeout)


class Command:
    """Starts the command that users type, with everything that it imports and its own server of processes.

    Args:
        folder: gets what makes every process of Python below the call begin with tests/benchmarks/moments.py.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text("from tests.benchmarks import moments\n\nmoments.begin()\n")
        self._path = os.pathsep.join([str(folder), str(ROOT)])

    def start(self, words: Sequence[str], variables: Mapping[str, str], output: Path) -> Started:
        """A call as a process of its own."""
        environment = {**os.environ, **variables, "PYTHONPATH": self._path}
        command = [sys.executable, "-m", "benchmarks", *words]
        with output.open("wb") as file:  # no pipe: who reads one waits for all that hold its other end
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, start_new_session=True)


class Campaign:
    """One `reproduce` with its records, its work and the traces of its calls below one folder.

    Args:
        folder: made here.
        start: starts a call.
        words: of the command, without folders.
        mark: operation that is a mark of progress.
    """

    def __init__(self, folder: Path, start: Start, words: Sequence[str], mark: str) -> None:
        folder.mkdir()
        self.folder, self.work, self.records = folder, folder / "work", Store(folder / "records")
        self.words = [*words, "--records", str(self.records.folder), "--work", str(self.work)]
        self.output, self.events = folder / "output", list[Event]()
        self._start, self._mark, self._numbers = start, mark, count()
        self._reached = Counter[str]()
        self._calls: list[int] = []

    def call(self, moment: Moment | None = None) -> int:
        """Call the command, wait for the end of all its processes, and check what it did and left.

        Returns:
            Its exit code, -SIGKILL at a moment that was reached.
        """
        before, there = self.files(), self.there()
        trace = self.folder / f"trace-{next(self._numbers)}"
        started = self.start(trace, moment)
        code = started.wait(PATIENCE)
        wait_for(lambda: not members(started.pid), "a run goes on although nobody waits for it")
        self.events = moments.events(trace)
        after = self.files()
        assert before.items() <= after.items(), "a record was changed or is lost"
        found = Counter((record.config_hash, record.seed) for record in self.records.records(status=None))
        assert sum(found.values()) == len(after) and set(found.values()) <= {1}, "a run was made twice"
        told = re.search(r"(\d+) there", self.output.read_text())  # lost with a call that is killed before it writes
        assert told is None or int(told[1]) == len(before), "a record was not found"
        self._check_steps(there)
        return code

    def start(self, trace: Path, moment: Moment | None) -> Started:
        """Call the command and leave it alone."""
        life = Life(str(self.folder), str(trace), self._mark, moment, 0)
        started = self._start(self.words, life.variables(), self.output)
        self._calls.append(started.pid)
        return started

    def close(self) -> None:
        """Leave nothing running, whatever went wrong."""
        for call in self._calls:
            if members(call):
                os.killpg(call, signal.SIGKILL)

    def files(self) -> dict[Path, bytes]:
        """Everything that the store reads."""
        return {path: path.read_bytes() for path in self.records.folder.glob("*/*.json")}

    def there(self) -> dict[str, int]:
        """By the folder's name of a run its last complete checkpoint, -1 where its record is written."""
        own = {path.name: path for path in self.work.glob("*-[0-9]") if path.is_dir()}
        latest = {name: checkpoint.latest(path) for name, path in own.items()}
        steps = {name: int(path.name.rpartition("-")[2]) for name, path in latest.items() if path is not None}
        return steps | {f"{record.config_hash}-{record.seed}": -1 for record in self.records.records()}

    def _check_steps(self, there: Mapping[str, int]) -> None:
        """Every run went on where its last checkpoint was, at most a step behind where it had been."""
        runs = {event.process: event.subject for event in self.events if event.operation == moments.RUN}
        for process, run in runs.items():
            own = [event for event in self.events if event.process == process and event.operation == moments.STEP]
            steps = [int(event.subject) for event in own]
            last = there.get(run, 0)
            assert last >= 0, "a run was begun again although its record was there"
            assert steps == list(range(last + 1, last + 1 + len(steps)))
            assert self._reached[run] <= last + 1, "more work was lost than what lies after the last checkpoint"
            self._reached[run] = max(last, *steps, 0)


def wait_for(what: Callable[[], bool], why: str) -> None:
    """Wait until something is so; fail after some time."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.005)


def members(group: int) -> list[int]:
    """Processes of a group that have not ended; one that nobody waits for stays as a zombie."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, _, own = (place / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(own) == group and state != "Z":
            found.append(int(place.name))
    return found


def tables(store: Store, folder: Path) -> dict[str, bytes]:
    """Every file that `paper_tables` makes of these records, with a constant where a clock decides.

    Args:
        store: of the records.
        folder: gets copies without clocks.
    """
    copies = Store(folder)
    for number, record in enumerate(sorted(store.records(status=None), key=lambda one: (one.config_hash, one.seed))):
        copies.append(without_clock(record, number))
    return rendered("smoke", copies)


def without_clock(record: RunRecord, number: int) -> RunRecord:
    """The record as if all runs took equally long, came one by one in one order, and nobody touched the checkout."""
    metrics = {
        name: Metric(1.0, metric.unit, metric.higher_is_better, metric.n) if name in MEASURED_BY_THE_CLOCK else metric
        for name, metric in record.metrics.items()
    }
    start = f"2026-01-01T00:{number // 60:02}:{number % 60:02}+00:00"
    name = f"20260101T00{number // 60:02}{number % 60:02}Z-{number:08x}"
    device = {key: value for key, value in record.device.items() if key != "runs_at_once"}
    named = replace(record, id=name, start=start, commit="0" * 40, dirty=False)
    return replace(named, seconds=1.0, metrics=metrics, device=device)


def draw(life: Sequence[Event], kills: int, seed: int, mark: str, last: int) -> list[Moment]:
    """Moments spread over the life of an undisturbed call, in their order, of every kind that it has.

    Args:
        life: its trace.
        kills: how many.
        seed: of the draw.
        mark: operation that is a mark of progress.
        last: marks before the last run begins; there a kill has no delay, or the call could end before it.
    """
    chance = random.Random(seed)
    end = max(place for place, event in enumerate(life) if event.operation == "os.link")
    kinds: dict[str, list[int]] = {}
    for place, event in enumerate(life[: end + 1]):
        kinds.setdefault(_kind(event, place, life), []).append(place)
    for places in kinds.values():
        chance.shuffle(places)
    chosen: list[int] = []
    while len(chosen) < kills:  # in turns, so that rare ones are not lost among the many writes of checkpoints
        for _, places in sorted(kinds.items()):
            if places and len(chosen) < kills:
                chosen.append(places.pop())
    found = []
    for place in sorted(chosen):
        marks = [at for at in range(place) if life[at].operation == mark]
        since = place - (marks[-1] if marks else -1)
        delay = chance.choice((0.0, chance.uniform(0, 0.02))) if len(marks) < last else 0.0
        found.append(Moment(len(marks), since, delay, group=chance.random() < 0.5))
    return found


def between_records(runs: int, kills: int, seed: int) -> list[Moment]:
    """Moments in the lives of runs that say nothing of their steps, in their order; the mark is a record.

    Args:
        runs: of the campaign. Of the last four none is killed by the clock, or the call could end before it.
        kills: how many.
        seed: of the draw.
    """
    chance = random.Random(seed)
    found = []
    for there in sorted(chance.randrange(runs) for _ in range(kills)):
        late = there >= runs - 4
        seconds = 0.0 if late else chance.choice((0.0, chance.uniform(0, 3)))
        found.append(Moment(there, chance.randint(1, 3 if late else 12), seconds, group=chance.random() < 0.5))
    return found


def _kind(event: Event, place: int, life: Sequence[Event]) -> str:
    """What a line belongs to."""
    if event.operation in (moments.FORK, moments.STEP, moments.RUN):
        return event.operation
    if event.subject.startswith("records/"):
        return f"record: {event.operation}"
    if event.operation in ("shutil.rmtree", "os.remove", "os.rmdir"):
        return "removal"
    if "checkpoint-" in event.subject:
        return "checkpoint"
    return "preparation"

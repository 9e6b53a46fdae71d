"""A call with a deadline, `--minutes N`: the order of its runs, and the time that each may be expected to take.

On a rented machine everything that is not finished is lost with it. So the first seeds of all cells come before any
second seed, cells that say that they are worth more come first among these, nothing begins that cannot end in time, and
what runs longer than expected is ended with its last checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.execution.plan import PlannedRun
from benchmarks.execution.started import seconds_ago
from benchmarks.experiment import Run
from results.record import RunRecord

RESERVE_SECONDS = 10.0
"""Kept for what comes after the last run: its process leaves, records are packed, sums are printed."""
_START_SECONDS = {"smoke": 5.0, "cpu": 5.0, "gpu": 15.0, "paper": 15.0}
"""Start of a run's process: a fork, or, where CUDA forbids that, all imports anew."""
_MARGINS = {"measured": 1.2, "similar": 1.4, "stated": 1.6}
"""Factor on the longest time of the cell's own records, of the most similar cells', on the hours that are stated."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that a run may still take, margin included, and the basis of that."""

    seconds: float
    basis: str


@dataclass(frozen=True)
class LeftOut:
    """A run that a call with a deadline did not finish, and the reason; `cut_off` if it had begun."""

    planned: PlannedRun
    reason: str
    cut_off: bool = False


class Budget:
    """Time that is left to a call.

    Args:
        minutes: of the whole call; None for one without a deadline.
        work: folder of unfinished work, in which checkpoints tell what part of a run is done.
        clock: monotonic seconds.
    """

    def __init__(self, minutes: float | None, work: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._work = clock, work
        length = math.inf if minutes is None else 60 * minutes - RESERVE_SECONDS - seconds_ago()
        self._deadline = clock() + length
        self.until = time.time() + length
        self._cells: dict[str, float] = {}
        self._experiments: dict[str, float] = {}

    @property
    def left(self) -> float:
        """Seconds until the last run has to be over; infinite without a deadline."""
        return self._deadline - self._clock()

    @property
    def over(self) -> bool:
        """True from the deadline on."""
        return self.left <= 0

    def estimate(self, planned: PlannedRun) -> Estimate:
        """Time that a run may still take: by what this call has measured, by records, or by what its experiment states.

        What a checkpoint holds is done.
        """
        cell = planned.run.cell
        own = self._cells.get(cell.config_hash, 0.0), (planned.longest or 0.0) if planned.exact else 0.0
        similar = planned.longest or self._experiments.get(cell.experiment, 0.0)
        times = {"measured": max(own), "similar": similar, "stated": planned.stated}
        basis = next((name for name, seconds in times.items() if seconds > 0), "stated")
        whole = _MARGINS[basis] * times[basis]
        return Estimate(max(0.0, whole - _spent(self._work, planned.run)) + _START_SECONDS[cell.tier], basis)

    def refusal(self, planned: PlannedRun, left: float | None = None) -> str | None:
        """Return the reason a run is not begun, or None.

        Args:
            planned: the run.
            left: seconds; those of now by default.
        """
        available = self.left if left is None else left
        if math.isinf(available):
            return None
        needed = self.estimate(planned)
        if needed.seconds <= available:
            return None
        return f"may take {duration(needed.seconds)} ({needed.basis}), more than is left when its turn comes"

    def learn(self, record: RunRecord) -> None:
        """Keep the time of a run that this call has finished, for those that follow."""
        if record.status == "finished":
            for known, key in ((self._cells, record.config_hash), (self._experiments, record.experiment)):
                known[key] = max(record.seconds, known.get(key, 0.0))


def order_of_worth(runs: Iterable[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Runs as a call with a deadline makes them: seed by seed, by falling worth, experiments in their order.

    A run that is matched to another one comes after it, whatever it is worth itself.
    """
    everything = list(runs)
    worth = {planned.run.key: planned.worth for planned in everything}

    def place(planned: PlannedRun) -> tuple[int, int, bool]:
        reference = planned.run.reference
        own = planned.worth if reference is None else min(planned.worth, worth.get(reference, planned.worth))
        return planned.run.row, -own, reference is not None

    return tuple(sorted(everything, key=place))


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def waits_in_vain(run: Run, absent: Collection[tuple[str, int]]) -> str | None:
    """Return the reason a run cannot be made because the one that it is matched to was not, or None."""
    if run.reference is None or run.reference not in absent:
        return None
    return f"is matched to a run of {run.cell.settings.reference.method} that was left out"


def _spent(work: Path, run: Run) -> float:
    """Seconds of a run that its checkpoints hold; the files are those of benchmarks/training/checkpoint.py."""
    files = (work / run.folder_name).glob("checkpoint-*/run.json")
    return max((float(json.loads(file.read_text())["progress"]["seconds"]) for file in files), default=0.0)

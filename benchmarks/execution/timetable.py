"""Forecast of a call with a deadline: the runs that it would finish, in their order, and the reasons of all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from benchmarks.execution.budget import Budget, Estimate, LeftOut, duration, order_of_worth, waits_in_vain
from benchmarks.execution.plan import Plan, PlannedRun
from benchmarks.experiment import Run
from results.printable import printable

_MOST_REASONS = 12


@dataclass(frozen=True)
class Entry:
    """A run, the second of the call at which it would begin, and the time that it is given."""

    planned: PlannedRun
    start: float
    estimate: Estimate


@dataclass(frozen=True)
class Timetable:
    """Runs that a call would bring if each took as long as it may.

    `elsewhere` says that the machine of the plan can make none of these runs, and another one is meant.
    """

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    elsewhere: bool


def by_worth(plan: Plan) -> Plan:
    """The same plan with its runs in the order of a call with a deadline."""
    return replace(plan, runs=order_of_worth(plan.runs))


def forecast(plan: Plan, budget: Budget, jobs: int = 1) -> Timetable:
    """Forecast a call.

    Runs that only a device of this machine is in the way of count as if the device were there.

    Args:
        plan: in its order.
        budget: of the call.
        jobs: runs at a time.
    """
    whole = budget.left
    free = [0.0] * jobs
    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    absent: set[tuple[str, int]] = set()
    ends: dict[tuple[str, int], float] = {}
    for planned in plan.runs:
        if planned.state == "done":
            continue
        key, reference = planned.run.key, planned.run.reference
        lane = min(range(jobs), key=free.__getitem__)
        start = max(free[lane], ends.get(reference, 0.0) if reference is not None else 0.0)
        reason = planned.reason if planned.state == "unavailable" and not planned.elsewhere else None
        reason = reason or waits_in_vain(planned.run, absent) or budget.refusal(planned, whole - start)
        if reason is not None:
            left_out.append(LeftOut(planned, reason))
            absent.add(key)
            continue
        estimate = budget.estimate(planned)
        entries.append(Entry(planned, start, estimate))
        free[lane] = ends[key] = start + estimate.seconds
    return Timetable(tuple(entries), tuple(left_out), any(entry.planned.elsewhere for entry in entries))


def print_timetable(timetable: Timetable, minutes: float, console: Console) -> None:
    """Print what a call of so many minutes would bring, in order, and what it would leave out, by reason."""
    entries, left_out = timetable.entries, timetable.left_out
    if timetable.elsewhere:
        console.print("this machine lacks the device; what follows is for one that has it", highlight=False)
    console.print(f"{minutes:g} minutes, in this order, if every run takes as long as it may:", highlight=False)
    table = Table("", "begins", "may take", "basis", "experiment", "cell", "seed", box=None, pad_edge=False)
    for number, entry in enumerate(entries, 1):
        run = entry.planned.run
        times = (duration(entry.start), duration(entry.estimate.seconds), entry.estimate.basis)
        table.add_row(str(number), *times, run.cell.experiment, _label(run), str(run.seed))
    if entries:
        console.print(table)
    console.print(f"{len(entries)} runs, {len(left_out)} left out", highlight=False)
    _print_left_out(left_out, console)


def print_left_out(left_out: Sequence[LeftOut], console: Console) -> None:
    """Print what a call has left undone at its deadline; nothing where it has done everything."""
    if not left_out:
        return
    began = sum(one.cut_off for one in left_out)
    console.print(f"{len(left_out)} runs left out, {began} of them cut off; the same command goes on with them")
    _print_left_out(left_out, console)


def _label(run: Run) -> str:
    """Label of a run's cell with its model and phase, where these have names."""
    model = getattr(getattr(run.cell.settings, "model", None), "name", "")
    phase = getattr(getattr(run.cell.settings, "protocol", None), "phase", "")
    return " ".join(filter(None, (run.cell.label, model, phase)))


def _print_left_out(left_out: Sequence[LeftOut], console: Console) -> None:
    """One line per experiment and reason, those of most runs first."""
    counts = Counter((one.planned.run.cell.experiment, one.reason) for one in left_out)
    lines = [f"  {count} of {experiment}: {reason}" for (experiment, reason), count in counts.most_common()]
    if len(lines) > _MOST_REASONS:
        lines = [*lines[:_MOST_REASONS], f"  and {len(lines) - _MOST_REASONS} more reasons"]
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

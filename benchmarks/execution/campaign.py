"""Carries out a plan: progress lines, errors kept for the end, an interrupt at any point, several runs at a time.

Every finished run is written at once. An interrupt ends the runs in progress, whose last checkpoints stay in the work
folder, and leaves everything before them as it is. So does a deadline, after which the call itself ends in order.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from rich.console import Console

from benchmarks.execution import provenance
from benchmarks.execution.budget import Budget, LeftOut, waits_in_vain
from benchmarks.execution.isolation import run_in_subprocess
from benchmarks.execution.plan import Plan, PlannedRun
from benchmarks.execution.progress import Report, Stopped, Watch
from benchmarks.execution.recording import is_refusal
from benchmarks.execution.unwritten import keep
from benchmarks.experiment import Run, RunContext
from results.printable import printable
from results.record import RunRecord
from results.store import Store
from results.strict import RecordError

Executor = Callable[[Run, RunContext, tuple[str, bool]], RunRecord]


@dataclass(frozen=True)
class Summary:
    """Result of a plan: records that finished, that failed, and those of methods not defined for the model.

    `unwritten` are the files of records that could not be written where they belong, `left_out` what a deadline has
    left undone.
    """

    finished: tuple[RunRecord, ...]
    failed: tuple[RunRecord, ...]
    refused: tuple[RunRecord, ...] = ()
    unwritten: tuple[Path, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def carry_out_plan(
    plan: Plan,
    store: Store,
    context: RunContext,
    console: Console,
    execute: Executor = run_in_subprocess,
    budget: Budget | None = None,
    records: list[RunRecord] | None = None,
) -> Summary:
    """Make every pending run of a plan, and write its record.

    Args:
        plan: from `make_plan`.
        store: gets the records.
        context: folder, threads, runs at a time; its `progress` is replaced by the progress lines.
        console: where these are shown.
        execute: makes one run; in a process of its own by default.
        budget: the time of a call with a deadline.
        records: gets every record as it is made, also of a call that is interrupted.

    Raises:
        KeyboardInterrupt: passed on; what is finished is in the store.
    """
    pending, origin = plan.in_state("pending"), provenance.commit()
    budget, records = budget or Budget(None, context.folder), [] if records is None else records
    unwritten, left_out = list[Path](), list[LeftOut]()
    written = {planned.run.key: Event() for planned in pending}
    with Watch(console, [planned.seconds for planned in pending]) as watch:

        def work(number: int) -> RunRecord | LeftOut:
            planned, run = pending[number], pending[number].run
            if run.reference in written:  # it reads the record of that run, which stands before it in the plan
                written[run.reference].wait()

            def make() -> RunRecord:
                with watch.run(number, _name(run)) as report:
                    reporting = replace(context, progress=_until(budget, report), until=budget.until)
                    return execute(run, reporting, origin)

            return _in_time(planned, {one.planned.run.key for one in left_out}, budget, make)

        def stop() -> None:
            watch.stop()
            for event in written.values():  # nobody waits for a run that will not come
                event.set()

        for planned, record in _as_they_come(pending, work, context.jobs, stop):
            if isinstance(record, LeftOut):
                left_out.append(_said(record, watch.console))
                written[planned.run.key].set()
                continue
            budget.learn(record)
            records.append(record)
            if record.status == "failed":  # and gone before anyone can know: the next try starts afresh, or it would
                _clear(planned.run, context.folder)  # meet the same end
            unwritten += _append(record, store, context.folder, watch.console)
            written[planned.run.key].set()
            _say(watch.console, record, planned.run)
            _clear(planned.run, context.folder)
    return _summary(records, unwritten, left_out)


def _in_time(
    planned: PlannedRun, absent: Collection[tuple[str, int]], budget: Budget, make: Callable[[], RunRecord]
) -> RunRecord | LeftOut:
    """Make a run if it can end in time; `absent` are the keys of those that were left out."""
    reason = waits_in_vain(planned.run, absent) or budget.refusal(planned)
    if reason is not None:
        return LeftOut(planned, reason)
    try:
        return make()
    except Stopped:
        if not budget.over:
            raise
        return LeftOut(planned, "was cut off; the same command goes on from its last checkpoint", cut_off=True)


def _append(record: RunRecord, store: Store, work: Path, console: Console) -> list[Path]:
    """Write a record where it belongs, or else to the work folder; returns its file there."""
    try:
        store.append(record)
    except RecordError as error:
        kept = keep(record, store, work)
        _alarm(console, f"{error}; the record is kept in {kept}")
        return [kept]
    return []


def _summary(records: Sequence[RunRecord], unwritten: Sequence[Path], left_out: Sequence[LeftOut]) -> Summary:
    return Summary(
        tuple(record for record in records if record.status == "finished"),
        tuple(record for record in records if record.status == "failed" and not is_refusal(record)),
        tuple(filter(is_refusal, records)),
        tuple(unwritten),
        tuple(left_out),
    )


def _name(run: Run) -> str:
    return f"{run.cell.experiment} {run.cell.label} seed {run.seed}"


def _until(budget: Budget, report: Report) -> Report:
    """A run's report of its progress, which ends the run once the time is over."""

    def report_in_time(done: int, total: int) -> None:
        if budget.over:
            raise Stopped("the time of the call is over")
        report(done, total)

    return report_in_time


def clear_finished(plan: Plan, folder: Path) -> None:
    """Remove unfinished work of runs whose records are there: a call that was killed between the two has left it.

    Args:
        plan: from `make_plan`.
        folder: of unfinished work.
    """
    for planned in plan.in_state("done"):
        _clear(planned.run, folder)


def _clear(run: Run, folder: Path) -> None:
    """Remove a run's unfinished work under another name: half removed it would look like a checkpoint."""
    unfinished = folder / run.folder_name
    removed = unfinished.with_name(f"{unfinished.name}.gone")
    shutil.rmtree(removed, ignore_errors=True)
    if unfinished.exists():
        unfinished.replace(removed)
        shutil.rmtree(removed, ignore_errors=True)


def _as_they_come(
    todo: Sequence[PlannedRun], work: Callable[[int], RunRecord | LeftOut], jobs: int, stop: Callable[[], None]
) -> Iterator[tuple[PlannedRun, RunRecord | LeftOut]]:
    """Runs with their records, or the reason of none, in the order in which they end; what one raises is passed on."""
    done: SimpleQueue[Future[RunRecord | LeftOut]] = SimpleQueue()
    with ThreadPoolExecutor(jobs) as pool:
        numbers = {}
        try:
            for number in range(len(todo)):
                future = pool.submit(work, number)
                numbers[future] = number
                future.add_done_callback(done.put)
            for _ in todo:
                future = done.get()
                yield todo[numbers[future]], future.result()
        except BaseException:  # an interrupt above all: no other run begins, and those in progress leave
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def last_line(record: RunRecord) -> str:
    """The line of a failed run's error that says what went wrong."""
    lines = (record.error or "").strip().splitlines()
    return printable(lines[-1]) if lines else "no message"


def _said(one: LeftOut, console: Console) -> LeftOut:
    """Tell of a run that was cut off, and give it back."""
    if one.cut_off:
        _alarm(console, f"cut off  {_name(one.planned.run)}: the time is over")
    return one


def _say(console: Console, record: RunRecord, run: Run) -> None:
    name = _name(run)
    if is_refusal(record):
        console.print(f"refused  {name}: {last_line(record)}", markup=False, highlight=False)
        return
    if record.status == "failed":
        _alarm(console, f"failed   {name}: {last_line(record)}")
        return
    shown = record.metrics.get("perplexity")
    score = "" if shown is None else f", perplexity {shown.value:.2f}"
    console.print(f"finished {name}: {record.seconds:.0f} s{score}", markup=False, highlight=False)


def _alarm(console: Console, text: str) -> None:
    console.print(text, style="red", markup=False, highlight=False)

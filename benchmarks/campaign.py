"""Carries out a plan run by run: a progress line, errors kept for the end, an interrupt at any point.

Every finished run is written at once. An interrupt ends the run in progress, whose last checkpoint stays in the work
folder, and leaves everything before it as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import environment
from benchmarks.experiment import Run, Workplace
from benchmarks.isolation import carry_out_apart
from benchmarks.plan import Plan, PlannedRun
from benchmarks.recording import is_refusal
from results.record import RunRecord
from results.store import Store

Executor = Callable[[Run, Workplace, tuple[str, bool]], RunRecord]
_WITHOUT_ESTIMATE = 60.0  # seconds: weight in the progress bar where nothing is known yet


@dataclass(frozen=True)
class Summary:
    """What came of a plan: records that finished, that failed, and those of methods not defined for the model."""

    finished: tuple[RunRecord, ...]
    failed: tuple[RunRecord, ...]
    refused: tuple[RunRecord, ...] = ()


def carry_out_plan(
    plan: Plan, store: Store, workplace: Workplace, console: Console, execute: Executor = carry_out_apart
) -> Summary:
    """Make every run of a plan that is to do, and write its record.

    Args:
        plan: from `make_plan`.
        store: gets the records.
        workplace: folder and threads; its `progress` is replaced by the progress line.
        console: where the progress line is shown.
        execute: makes one run; in a process of its own by default.

    Raises:
        KeyboardInterrupt: passed on; what is finished is in the store.
    """
    origin = environment.commit()
    records: list[RunRecord] = []
    todo = plan.in_state("to do")
    with _bar(console) as bar:
        task = bar.add_task("", total=sum(_weight(planned) for planned in todo))
        done = 0.0
        for number, planned in enumerate(todo, start=1):
            run, weight = planned.run, _weight(planned)
            label = f"{number}/{len(todo)} {run.cell.experiment} {run.cell.label} seed {run.seed}"
            bar.update(task, description=label, completed=done)
            told = replace(workplace, progress=_reporter(bar, task, label, done, weight))
            record = execute(run, told, origin)
            store.append(record)
            records.append(record)
            _say(bar.console, record, run)
            # Finished: nothing to resume. Failed: the next try starts afresh, or it would meet the same end.
            shutil.rmtree(workplace.folder / run.folder_name, ignore_errors=True)
            done += weight
            bar.update(task, completed=done)
    return Summary(
        tuple(record for record in records if record.status == "finished"),
        tuple(record for record in records if record.status == "failed" and not is_refusal(record)),
        tuple(filter(is_refusal, records)),
    )


def last_line(record: RunRecord) -> str:
    """The line of a failed run's error that says what went wrong."""
    lines = (record.error or "").strip().splitlines()
    return lines[-1] if lines else "no message"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _reporter(bar: Progress, task: object, label: str, done: float, weight: float) -> Callable[[int, int], None]:
    def report(step: int, total: int) -> None:
        share = step / max(total, 1)
        bar.update(task, description=f"{label} step {step}/{total}", completed=done + share * weight)  # type: ignore[arg-type]

    return report


def _say(console: Console, record: RunRecord, run: Run) -> None:
    name = f"{record.experiment} {run.cell.label} seed {record.seed}"
    if is_refusal(record):
        console.print(f"refused  {name}: {last_line(record)}", markup=False, highlight=False)
        return
    if record.status == "failed":
        console.print(f"failed   {name}: {last_line(record)}", style="red", markup=False, highlight=False)
        return
    shown = record.metrics.get("perplexity")
    score = "" if shown is None else f", perplexity {shown.value:.2f}"
    console.print(f"finished {name}: {record.seconds:.0f} s{score}", markup=False, highlight=False)


def _weight(planned: PlannedRun) -> float:
    return planned.seconds if planned.seconds is not None else _WITHOUT_ESTIMATE

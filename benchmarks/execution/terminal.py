"""Messages of the suite in the terminal: the plan before, failures and unavailable runs after."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.execution import provenance
from benchmarks.execution.budget import duration
from benchmarks.execution.campaign import Summary, last_line
from benchmarks.execution.plan import Needs, Plan, PlannedRun
from benchmarks.execution.requirements import gigabytes, needs_cuda
from benchmarks.experiment import Experiment, Tier
from results.difference import causes, effects
from results.printable import printable
from results.record import RunRecord


def print_plan(plan: Plan, console: Console, jobs: int = 1) -> None:
    """Print one line per cell, the sums, and why runs are unavailable here; a short line when nothing is pending.

    Args:
        plan: from `make_plan`.
        console: the terminal.
        jobs: runs at a time.
    """
    pending, done, unavailable = (plan.in_state(state) for state in ("pending", "done", "unavailable"))
    if plan.runs and not pending and not unavailable:
        console.print(f"tier {plan.tier}: all {len(done)} runs are done, nothing is pending (--force runs again)")
    else:
        console.print(_table(plan))
        counts = f"{len(done)} done, {len(pending)} pending, {len(unavailable)} unavailable"
        console.print(f"{counts}{_outlook(plan, jobs)}")
        if any(planned.seconds is None for planned in (*pending, *unavailable)):
            console.print(_needs(plan.needs))
        print_unavailable(plan, console)
        _print_crowd(plan, jobs, console)
    for name, reason in plan.absent:
        console.print(f"{name}: not in tier {plan.tier}: {escape(reason)}")


def print_unavailable(plan: Plan, console: Console) -> int:
    """Print the reasons runs are unavailable here, each once; return 1 if there are any, else 0."""
    unavailable = plan.in_state("unavailable")
    for reason in dict.fromkeys(planned.reason for planned in unavailable):
        count = sum(planned.reason == reason for planned in unavailable)
        _alarm(console, f"{count} runs cannot be made: {reason}")
    return int(bool(unavailable))


def say(console: Console, text: str) -> None:
    """Print a line of text as it is."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def print_summary(summary: Summary, records: Path, console: Console) -> None:
    """Print how many runs finished, where their records are, and every failure with the line that says why."""
    refused = f", {len(summary.refused)} refused by their methods" if summary.refused else ""
    counts = f"{len(summary.finished)} finished, {len(summary.failed)} failed{refused}"
    console.print(f"{counts}; records in {escape(str(records))}")
    for record in summary.failed:
        name = f"{record.experiment} {record.method} target {record.config.get('target')} seed {record.seed}"
        _alarm(console, f"FAILED {name}: {last_line(record)}")
    for path in summary.unwritten:
        _alarm(console, f"NOT WRITTEN where it belongs: {path}; the same command moves it there once that is possible")
    if summary.failed:
        console.print("the full errors are in the records; the same command tries the failed runs again")


def print_differences(first: RunRecord, second: RunRecord, console: Console) -> None:
    """Two tables: what may be the reason, and what came out differently."""
    for title, differences, empty in (
        ("what differs", causes(first, second), "configuration, seed, data, code, versions and device are the same"),
        ("results", effects(first, second), "all results are the same"),
    ):
        if not differences:
            console.print(f"{title}: {empty}")
            continue
        table = Table("part", "field", first.id, second.id, title=title, title_justify="left", box=None, pad_edge=False)
        for one in differences:
            table.add_row(*(escape(printable(str(cell))) for cell in (one.part, one.field, one.first, one.second)))
        console.print(table)


def why_absent(experiment: Experiment, tier: Tier) -> str:
    """Return the reason an experiment does not exist in a tier."""
    reason = experiment.absent.get(tier, f"it exists in the tiers {', '.join(experiment.tiers)} only")
    return f"not in tier {tier}: {reason}"


def _outlook(plan: Plan, jobs: int) -> str:
    """Time and memory of the pending runs, as far as earlier records tell."""
    if not plan.in_state("pending"):
        return ""
    at_once = f", {jobs} at a time" if jobs > 1 else ""
    time = "unknown" if plan.seconds is None else f"about {duration(plan.seconds / jobs)}{at_once}"
    peak = plan.memory(jobs)
    return f"; estimated time {time}, memory {'unknown' if peak is None else f'up to {gigabytes(peak)}{at_once}'}"


def _print_crowd(plan: Plan, jobs: int, console: Console) -> None:
    """Warn when runs that are to be made together need more memory than the machine has."""
    here = provenance.memory()
    fitting = [count for count in range(1, jobs + 1) if (plan.memory(count) or 0) <= here]
    on_gpu = any(needs_cuda(planned.run.cell) for planned in plan.in_state("pending"))
    if here and fitting and len(fitting) < jobs and not on_gpu:
        _alarm(console, f"this machine has {gigabytes(here)}: fewer at a time, --jobs {len(fitting)}")


def _alarm(console: Console, text: str) -> None:
    text = printable(text)
    console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def _table(plan: Plan) -> Table:
    table = Table("experiment", "cell", "done", "pending", "unavailable", "time", "memory", box=None, pad_edge=False)
    ordered = sorted(plan.runs, key=lambda planned: (planned.run.cell.experiment, planned.run.cell.label))
    for (experiment, label), group in groupby(ordered, lambda p: (p.run.cell.experiment, p.run.cell.label)):
        runs = list(group)
        counts = [sum(planned.state == state for planned in runs) for state in ("done", "pending", "unavailable")]
        peaks = [planned.memory for planned in runs if planned.memory is not None]
        memory = gigabytes(max(peaks)) if peaks else ""
        table.add_row(experiment, label, *(str(count or "") for count in counts), _estimate(runs), memory)
    return table


def _needs(needs: Sequence[Needs]) -> Table:
    """Table of what experiments say they take, where no record tells; columns of which nothing is said are left out."""
    rows: list[dict[str, str]] = []
    for one in needs:
        plan = one.tier_plan
        sizes = {"its memory": plan.memory, "data": plan.data, "disk": plan.disk}
        texts = {name: "" if size is None else gigabytes(1e9 * size) for name, size in sizes.items()}
        hours = f"{one.hours:,.0f}" if one.hours >= 10 else f"{one.hours:.2g}"
        rows.append(
            {"experiment": one.experiment, "runs": str(one.runs), "hours": hours, "machine": plan.machine, **texts}
        )
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    table = Table(*names, title="what the experiments say they take", title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _estimate(runs: list[PlannedRun]) -> str:
    seconds = [planned.seconds for planned in runs if planned.state == "pending"]
    known = [value for value in seconds if value is not None]
    return duration(sum(known)) if known else ""

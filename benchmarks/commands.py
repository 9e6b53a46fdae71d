"""The commands of the suite: each a frozen dataclass, from which the command line is made, and one function."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from benchmarks import packing, registry
from benchmarks.execution import terminal, timetable
from benchmarks.execution.budget import Budget
from benchmarks.execution.campaign import Executor, carry_out_plan, clear_finished
from benchmarks.execution.initial_weights import started_from
from benchmarks.execution.interrupts import raise_from_now_on
from benchmarks.execution.isolation import run_in_subprocess
from benchmarks.execution.occupancy import occupied, occupied_if_free
from benchmarks.execution.option_checks import (
    check_folders,
    check_minutes,
    check_numbers,
    check_tier,
    each_once,
    methods_of,
    shares,
)
from benchmarks.execution.pack import megabytes
from benchmarks.execution.plan import Plan, make_plan
from benchmarks.execution.provenance import ROOT
from benchmarks.execution.room import check_room
from benchmarks.execution.unwritten import adopt
from benchmarks.experiment import Cell, Experiment, MethodRef, RunContext, Tier
from benchmarks.experiments import compare as one_shot
from benchmarks.packing import MethodNames
from results.archive import pack as pack_records
from results.record import RunRecord
from results.store import DEFAULT_FOLDER, Store

README = ROOT / "benchmarks" / "README.md"
WORK_FOLDER = ROOT / ".ecospa-runs"
_MOST_THREADS = 8  # the models of the small tiers get slower beyond
_MOST_JOBS = 4  # each holds about a gigabyte


@dataclass(frozen=True)
class List:
    """List the experiments: what each asks, in which tiers, with which methods.

    Attributes:
        readme: write the table of experiments into benchmarks/README.md instead.
    """

    readme: bool = False


@dataclass(frozen=True)
class Show:
    """Show one experiment: its question, command, hours per tier, expected result, and its cells."""

    name: tyro.conf.Positional[str]
    tier: Tier = "smoke"


@dataclass(frozen=True)
class RunOptions:
    """Options that `run` and `reproduce` share.

    Attributes:
        tier: smoke (any laptop, no network), cpu (a local mirror), gpu (one large GPU), paper (days, the Hub).
        methods: only these methods, by spaces or commas; my_package.my_module:MyMethod takes one of your own.
        seeds: only these seeds; those of the tier by default.
        force: make runs again whose records are there; the old records stay.
        dry_run: print the plan and stop.
        records: folder of the records.
        work: folder of unfinished runs and caches.
        threads: processor threads per run; by default one at tier smoke, else all cores, at most 8.
        jobs: runs at a time; by default as many as there are cores at tier smoke, at most 4, else one: others disturb
            what a run measures. Ratios are interleaved inside one run and stay what they are.
        weights: folder of a Hugging Face BERT checkpoint; experiments with BERT then start from it, not from nothing.
        minutes: end by then: first seeds and headline cells first, nothing begun that cannot end in time, no tables.
        pack: archive that gets the records of this call; with --minutes a file in the work folder by default.
    """

    tier: Tier = "smoke"
    methods: MethodNames = ()
    seeds: tuple[int, ...] = ()
    force: bool = False
    dry_run: bool = False
    records: Path = DEFAULT_FOLDER
    work: Path = WORK_FOLDER
    threads: int | None = None
    jobs: int | None = None
    weights: Path | None = None
    minutes: float | None = None
    pack: Path | None = None


@dataclass(frozen=True)
class Run(RunOptions):
    """Run experiments and write one record per run; runs whose records are there are skipped.

    Attributes:
        names: the experiments.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Reproduce(RunOptions):
    """Run all experiments of a tier, then make every table and figure; call it again to go on after an interrupt.

    Attributes:
        only: only these experiments.
    """

    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compare(RunOptions):
    """Compress a trained model with several methods, then make the tables: one plot and one table per model.

    Attributes:
        model: gpt2 or llama (trained here once; llama in tier cpu), or stories260K (from the mirror, tier cpu).
        sizes: shares of the block parameters to keep, such as 0.8,0.5.
    """

    model: str = one_shot.MODELS[0]
    sizes: Annotated[str, tyro.conf.arg(metavar="SHARES")] = ",".join(f"{size:g}" for size in one_shot.SIZES)


@dataclass(frozen=True)
class WhyDifferent:
    """Name every difference between two records: configuration, protocol, data, code, versions, device, and results.

    Attributes:
        first: id of a record, or its file.
        second: id of the other, or its file.
        records: folder of the records.
    """

    first: tyro.conf.Positional[str]
    second: tyro.conf.Positional[str]
    records: Path = DEFAULT_FOLDER


def list_experiments(command: List, console: Console) -> int:
    """Print every experiment with its question, or write them into the page."""
    if command.readme:
        from baselines.generated import filled  # imports torch, which a list does without

        page = README.read_text(encoding="utf-8")
        README.write_text(filled(page, "experiments", experiment_table()), encoding="utf-8")
        return 0
    for name, experiment in registry.experiments().items():
        console.print(f"[bold]{name}[/bold]: {experiment.question}")
        for tier, plan in experiment.tiers.items():
            seeds = f"{len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}"
            console.print(f"  {tier:6} {plan.hours:g} h, {seeds}, {plan.machine}", highlight=False)
        console.print(f"  methods: {', '.join(experiment.methods)}", highlight=False)
    return 0


def experiment_table() -> str:
    """Return the table of all experiments in Markdown, as benchmarks/README.md shows it."""
    from baselines.generated import markdown_table  # imports torch, which a list does without

    rows = (
        (f"[`{name}`](experiments/{name}.py)", one.question, ", ".join(one.tiers))
        for name, one in registry.experiments().items()
    )
    return markdown_table(("Experiment", "Question", "Tiers"), rows)


def show(command: Show, console: Console) -> int:
    """Print an experiment's header and the cells of a tier."""
    experiment = registry.experiment(command.name)
    console.print(registry.header(command.name), markup=False, highlight=False)
    if command.tier not in experiment.tiers:
        console.print(f"\n{terminal.why_absent(experiment, command.tier)}", markup=False, highlight=False)
        return 0
    console.print(f"\nCells of tier {command.tier}:")
    for cell in experiment.cells(command.tier, tuple(MethodRef(name) for name in experiment.methods)):
        console.print(f"  {cell.config_hash}  {cell.label}", highlight=False)
    return 0


def run(command: Run, console: Console, execute: Executor = run_in_subprocess) -> int:
    """Run the named experiments."""
    if not command.names:
        raise ValueError(f"names is empty; give one or more of {', '.join(registry.experiments())}")
    experiments = [registry.experiment(name) for name in each_once(command.names)]
    code = _plan_and_run(experiments, command, console, execute)
    if not command.dry_run:
        console.print(f"tables and plots of the records: python -m paper_tables --tier {command.tier} --all")
    return code


def reproduce(command: Reproduce, console: Console, execute: Executor = run_in_subprocess) -> int:
    """Run everything of a tier and make the tables."""
    names: Sequence[str] = each_once(command.only) or tuple(registry.experiments())
    code = _plan_and_run([registry.experiment(name) for name in names], command, console, execute)
    if command.dry_run or command.minutes is not None:
        return code
    console.file.flush()
    return max(code, make_tables(command.tier, command.records))


def compare(command: Compare, console: Console, execute: Executor = run_in_subprocess) -> int:
    """Compress one model with the named methods at the named sizes and make the tables."""
    if command.tier not in one_shot.SUBJECTS or command.model not in {s.model for s in one_shot.SUBJECTS[command.tier]}:
        there = [f"{s.model} in tier {tier}" for tier, subjects in one_shot.SUBJECTS.items() for s in subjects]
        raise ValueError(f"model is {command.model!r} in tier {command.tier}; choose {', '.join(there)}")
    sizes = shares(command.sizes)

    def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
        return tuple(one_shot.chosen_cells(tier, methods, command.model, sizes))

    experiment = replace(registry.experiment(one_shot.NAME), cells=cells)
    code = _plan_and_run([experiment], command, console, execute)
    if command.dry_run or command.minutes is not None:
        return code
    console.file.flush()
    return max(code, make_tables(command.tier, command.records))


def why_different(command: WhyDifferent, console: Console) -> int:
    """Print what may explain different numbers, and the numbers."""
    store = Store(command.records)
    first, second = (_find(store, name) for name in (command.first, command.second))
    terminal.print_differences(first, second, console)
    return 0


def _find(store: Store, name: str) -> RunRecord:
    """A record by its id or its file."""
    if name.endswith(".json"):
        path = Path(name).resolve()
        return Store(path.parent.parent).read(path)
    matches = [record for record in store.records(status=None) if record.id == name]
    if not matches:
        raise ValueError(f"record is {name!r}; give the id of a record in {store.folder}, or its .json file")
    return matches[0]


def make_tables(tier: Tier, records: Path) -> int:
    """Make every table and figure of a tier in a process of its own (imports go down only); 0 or 1.

    Those of other records than the checkout's are put next to these, so that nothing that is committed changes.
    """
    raise_from_now_on()
    words = ["-m", "paper_tables", "--tier", tier, "--records", str(records.resolve()), "--all"]
    if records.resolve() != DEFAULT_FOLDER.resolve():
        words += ["--out", str(records.resolve() / "rendered" / tier)]
    return int(subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode != 0)


def _plan_and_run(experiments: Sequence[Experiment], options: RunOptions, console: Console, execute: Executor) -> int:
    budget = Budget(options.minutes, options.work)  # the first thing: its clock runs
    check_tier(options.tier)
    check_minutes(options.minutes)
    check_numbers(options.seeds, options.threads, options.jobs)
    check_folders(records=options.records, work=options.work, weights=options.weights)
    methods = methods_of(options.methods, experiments)
    if options.weights is not None:
        experiments = started_from(experiments, options.weights, options.tier)

    def planned() -> Plan:
        seeds = each_once(options.seeds)
        plan = make_plan(experiments, options.tier, Store(options.records), methods, seeds, options.force)
        return plan if options.minutes is None else timetable.by_worth(plan)

    plan, jobs = planned(), _jobs(options)
    held = list(dict.fromkeys(f"{options.tier}-{name}" for name in _written_under(plan, experiments)))
    if options.dry_run or not plan.in_state("pending"):
        _print_plan(plan, options, jobs, budget, console)
        if not options.dry_run:
            with occupied_if_free(options.work, held) as ours:
                if ours:  # else what looks unfinished may be another call's
                    clear_finished(plan, options.work)
        return 0 if options.dry_run else int(bool(plan.in_state("unavailable")))  # the plan has told why
    say = functools.partial(terminal.say, console)
    check_room(plan, Store(options.records), options.work, say)
    with occupied(options.work, held, say):
        names = [experiment.name for experiment in experiments]
        adopt(Store(options.records), options.work, names, options.tier, say)
        return _run_held(planned(), options, jobs, budget, console, execute)


def _written_under(plan: Plan, experiments: Sequence[Experiment]) -> list[str]:
    """Names of the experiments, and of those that own cells which they share."""
    return [*(experiment.name for experiment in experiments), *(one.run.cell.experiment for one in plan.runs)]


def _print_plan(plan: Plan, options: RunOptions, jobs: int, budget: Budget, console: Console) -> None:
    """Print the plan; of a call with a deadline what it will bring, and for a dry run the size of its pack."""
    if options.minutes is None:
        terminal.print_plan(plan, console, jobs)
        return
    table = timetable.forecast(plan, budget, jobs)
    timetable.print_timetable(table, options.minutes, console)
    if options.dry_run and table.entries:
        only = options.names if isinstance(options, Run) else getattr(options, "only", ())
        there = packing.Pack(Path(), only, plan.tier, options.minutes, options.methods, options.seeds, jobs)
        packing.print_sizes(packing.contents_of(table, replace(there, records=options.records)), console)


def _run_held(plan: Plan, options: RunOptions, jobs: int, budget: Budget, console: Console, execute: Executor) -> int:
    """Carry out a plan that was made while no other call could change what it is about."""
    _print_plan(plan, options, jobs, budget, console)
    clear_finished(plan, options.work)
    if not plan.in_state("pending"):
        return int(bool(plan.in_state("unavailable")))
    # smoke models are so small that threads cost more than they bring, and nobody quotes their times
    threads = 1 if options.tier == "smoke" else min(_cores(), _MOST_THREADS)
    context = RunContext(options.work, options.threads or threads, jobs, records=options.records)
    raise_from_now_on()
    if options.pack is not None:
        pack_records((), options.pack)  # not after hours: it is an archive, and can be written
    made: list[RunRecord] = []
    try:
        summary = carry_out_plan(plan, Store(options.records), context, console, execute, budget, made)
    finally:  # after an interrupt, too
        _pack_records(made, options, console)
    terminal.print_summary(summary, options.records, console)
    timetable.print_left_out(summary.left_out, console)
    return max(terminal.print_unavailable(plan, console), int(bool(summary.failed or summary.unwritten)))


def _pack_records(made: Sequence[RunRecord], options: RunOptions, console: Console) -> None:
    """Pack the records of a call where it was asked for, or where the call has a deadline."""
    if options.pack is None and options.minutes is None:
        return
    if not made:
        console.print("no record was made, and nothing is packed")
        return
    name = f"records-{options.tier}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"
    path = pack_records(made, options.pack or options.work / name)
    terminal.say(console, f"{len(made)} records packed: {path} ({megabytes(path.stat().st_size)}); "
                          f"python -m results import {path.name} adds them elsewhere")  # fmt: skip


def _jobs(options: RunOptions) -> int:
    """Runs at a time."""
    return options.jobs or (min(_cores(), _MOST_JOBS) if options.tier == "smoke" else 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The command `pack`: runs of a tier made ready for a machine without a network, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro
from rich.console import Console

from benchmarks import registry
from benchmarks.execution import pack, terminal, timetable
from benchmarks.execution.budget import Budget
from benchmarks.execution.option_checks import check_minutes, check_numbers, check_tier, each_once, methods_of
from benchmarks.execution.packages import CARRIED
from benchmarks.execution.plan import make_plan
from benchmarks.experiment import Tier
from results.store import DEFAULT_FOLDER, Store

MethodNames = Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--method"], metavar="NAME")]


@dataclass(frozen=True)
class Pack:
    """Pack code, data and packages into one file that runs on a machine without a network: `python OUT`.

    Attributes:
        out: the file, a .zip.
        only: only these experiments.
        tier: of the runs there.
        minutes: that the call there has; what does not fit into them is not packed. Without, everything is.
        methods: only these methods.
        seeds: only these seeds.
        jobs: runs at a time there.
        packages: distributions that the machine may lack; carried with their pure-Python requirements.
        megabytes: most that the file may have.
        records: folder of the records.
    """

    out: tyro.conf.Positional[Path]
    only: tuple[str, ...] = ()
    tier: Tier = "gpu"
    minutes: float | None = None
    methods: MethodNames = ()
    seeds: tuple[int, ...] = ()
    jobs: int = 1
    packages: tuple[str, ...] = CARRIED
    megabytes: float = 60.0
    records: Path = DEFAULT_FOLDER


def pack_for_elsewhere(command: Pack, console: Console) -> int:
    """Write the pack of a tier's runs, or of those that fit into some minutes; print its size and its command."""
    check_tier(command.tier)
    check_minutes(command.minutes)
    check_numbers(command.seeds, None, command.jobs)
    if command.out.suffix != ".zip":
        raise ValueError(f"out is {str(command.out)!r}; give a file whose name ends in .zip")
    experiments = [registry.experiment(name) for name in each_once(command.only) or tuple(registry.experiments())]
    methods = methods_of(command.methods, experiments)
    plan = make_plan(experiments, command.tier, Store(command.records), methods, each_once(command.seeds))
    with TemporaryDirectory() as nothing:  # the other machine has no unfinished work
        budget = Budget(command.minutes, Path(nothing))
        table = timetable.forecast(timetable.by_worth(plan), budget, command.jobs)
    if not table.entries:
        timetable.print_timetable(table, command.minutes or 0.0, console)
        return 1
    chosen = contents_of(table, command)
    print_sizes(chosen, console)
    size = pack.write(chosen, command.out, int(command.megabytes * pack.MEGABYTE))
    words = " ".join(chosen.order["words"])
    terminal.say(console, f"{command.out}: {pack.megabytes(size)}, {len(table.entries)} runs; on the other machine, "
                          f"python {command.out.name} does python -m benchmarks {words}")  # fmt: skip
    return 0


def contents_of(table: timetable.Timetable, command: Pack) -> pack.Contents:
    """Contents of the pack that makes the runs of a timetable elsewhere."""
    cells = [entry.planned.run.cell for entry in table.entries]
    asked = command.only or tuple(dict.fromkeys(cell.experiment for cell in cells))
    names = [name for name in asked if command.tier in registry.experiment(name).tiers]
    words = ["run", *names, "--tier", command.tier]
    words += ["--methods", *command.methods] if command.methods else []
    words += ["--seeds", *map(str, command.seeds)] if command.seeds else []
    words += ["--jobs", str(command.jobs)]
    words += ["--minutes", f"{command.minutes:g}"] if command.minutes is not None else []
    experiments = [registry.experiment(name) for name in names]
    return pack.contents(experiments, cells, command.tier, words, command.records, command.packages)


def print_sizes(chosen: pack.Contents, console: Console) -> None:
    """Print the size of a pack and of its largest parts."""
    sizes = chosen.sizes()
    parts = "; ".join(f"{group} {pack.megabytes(size)}" for group, size in list(sizes.items())[:4])
    total = pack.megabytes(sum(sizes.values()))
    terminal.say(console, f"as a pack for another machine (python -m benchmarks pack OUT): {total}, of which {parts}")

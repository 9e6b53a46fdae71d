"""Contract of an experiment: frozen settings for every run, hashed, so that a record says exactly what was measured.

A cell of a table is one `Cell`; a `Run` is a cell with a seed. The seed stays out of the configuration, so that the
seeds of one cell share its hash. A tier changes sizes, steps and the data source, never the code.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from results.plan_history import PlanEvent
from results.record import Metric, config_hash

if TYPE_CHECKING:
    from benchmarks.data.source import BoundSource

Tier = Literal["smoke", "cpu", "gpu", "paper"]
TIERS: tuple[Tier, ...] = ("smoke", "cpu", "gpu", "paper")


@dataclass(frozen=True)
class MethodRef:
    """A method by its name in `baselines`, or by the place of its class, `my_package.my_module:MyMethod`.

    A custom method is called as it calls itself (`training.methods.named`). An experiment that runs one class under
    several settings gives each a name of its own, because a method at a target is one cell of a table.

    Attributes:
        name: what records, tables and plots call it.
        location: where its class is, where that is not `baselines` under this name.
        custom: True if the command line named it by its place.
    """

    name: str
    location: str | None = None
    custom: bool = field(default=False, compare=False)

    @property
    def argument(self) -> str:
        """Text by which the command line names it: its name, or the place of a custom method."""
        return str(self.location) if self.custom else self.name

    @classmethod
    def parse(cls, text: str) -> MethodRef:
        """Read a method from the command line.

        Raises:
            ValueError: the text is empty or has an empty side of its colon.
        """
        module, colon, name = text.partition(":")
        if not module or (colon and not name):
            raise ValueError(f"method is {text!r}; give a name of `baselines` or my_package.my_module:MyMethod")
        return cls(name, text, custom=True) if colon else cls(module)


@dataclass(frozen=True)
class Cell:
    """One cell of a table: an experiment, a tier, a method and its settings; `settings` has `to_config()`.

    A cell that another experiment has as well names the one whose records it is written under, and is run once.
    `seeds` are its own where they are not those of the tier: more for a comparison that a claim hangs on.
    """

    experiment: str
    tier: Tier
    method: str
    settings: Any
    seeds: tuple[int, ...] | None = field(default=None, compare=False)

    @property
    def config(self) -> dict[str, Any]:
        """The full resolved configuration as plain JSON."""
        named = {"experiment": self.experiment, "tier": self.tier, "method": self.method}
        return {**named, **self.settings.to_config()}

    @property
    def config_hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON of `config`."""
        return config_hash(self.config)

    @property
    def label(self) -> str:
        """Short name for people: method and, where there is one, the share of the blocks kept."""
        target = getattr(self.settings, "target", None)
        return self.method if target is None else f"{self.method} {target:g}"


@dataclass(frozen=True)
class Run:
    """One cell with one seed: what becomes one record."""

    cell: Cell
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        """Hash of the cell's configuration, and the seed: no two runs share both."""
        return self.cell.config_hash, self.seed

    @property
    def reference(self) -> tuple[str, int] | None:
        """Hash and seed of the run whose record this one is matched to, and has to wait for; None for most."""
        reference = getattr(self.cell.settings, "reference", None)
        return None if reference is None else (reference.config_hash, reference.seed(self.seed))

    @property
    def row(self) -> int:
        """Seed that has to be run before, or with, this one."""
        return self.seed if self.reference is None else max(self.seed, self.reference[1])

    @property
    def folder_name(self) -> str:
        """Name of the run's folder of unfinished work."""
        return f"{self.cell.config_hash}-{self.seed}"


def ignore_progress(done: int, total: int) -> None:
    """Takes reports of progress where nobody looks at them."""


@dataclass(frozen=True)
class RunContext:
    """Circumstances in which runs are carried out; nothing here may change a result.

    `folder` holds unfinished work and caches; `progress(done, total)` is told how far a run is, in its own steps;
    a checkpoint is written when `checkpoint_seconds` have passed since the last was there, and twenty times as long as
    it took; with 0 at every step whose loss is logged. `jobs` runs are carried out at a time, with `threads` each.
    `records` is the folder of the store, for runs that are matched to the record of another. `until` is the time, as
    time.time() tells it, at which the run is ended: a last checkpoint is written shortly before.
    """

    folder: Path
    threads: int = 2
    jobs: int = 1
    checkpoint_seconds: float = 30.0
    progress: Callable[[int, int], None] = ignore_progress
    records: Path | None = None
    until: float = math.inf


@dataclass(frozen=True)
class RunResult:
    """Results of a run; the rest of its record is bookkeeping."""

    metrics: Mapping[str, Metric]
    data_fingerprint: str
    plan_history: tuple[PlanEvent, ...] = ()
    loss_curve: tuple[tuple[int, float], ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    seconds_before: float = 0.0


def execute_procedure(run: Run, context: RunContext) -> RunResult:
    """Carry out a run by the file of `benchmarks/procedures` that its settings name.

    Args:
        run: `run.cell.settings.procedure` is the file's name; the file has a function of this signature, `execute`.
        context: where and how.
    """
    procedure = importlib.import_module(f"benchmarks.procedures.{run.cell.settings.procedure}")
    result: RunResult = procedure.execute(run, context)
    return result


@dataclass(frozen=True)
class TierPlan:
    """One tier of an experiment: its seeds, and what all of it takes.

    Attributes:
        seeds: of every cell.
        hours: for all runs, one after another on such a machine.
        machine: that it wants, in words.
        memory: gigabytes on the device that the largest run holds at its peak, None where nothing is said.
        data: gigabytes of data sets and weights to download or to stream.
        disk: gigabytes of the work folder with them: three checkpoints of the largest run, tokens, decoded examples.
    """

    seeds: tuple[int, ...]
    hours: float
    machine: str
    memory: float | None = None
    data: float | None = None
    disk: float | None = None


def equal_worth(cell: Cell) -> int:
    """Give every cell of an experiment the worth 0."""
    return 0


@dataclass(frozen=True)
class Experiment:
    """One question, its cells and the function that answers for one of them.

    Attributes:
        name: the file's name in `benchmarks/experiments`.
        question: one line: what is tested.
        tiers: the tiers it exists in.
        absent: why it does not exist in the others, by tier.
        methods: names of the methods compared, in the order of the table.
        cells: (tier, methods) -> the cells.
        sources: tier -> the data that it needs.
        execute: (run, context) -> result; by default the procedure that the settings of a cell name.
        worth: cell -> its place in a call of limited minutes (`--minutes`): higher ones are run first, 0 where
            nothing is said. No part of the configuration.
    """

    name: str
    question: str
    tiers: Mapping[Tier, TierPlan]
    methods: tuple[str, ...]
    cells: Callable[[Tier, tuple[MethodRef, ...]], tuple[Cell, ...]]
    sources: Callable[[Tier], tuple[BoundSource, ...]]
    absent: Mapping[Tier, str] = field(default_factory=dict)
    execute: Callable[[Run, RunContext], RunResult] = execute_procedure
    worth: Callable[[Cell], int] = equal_worth

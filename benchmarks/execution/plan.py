"""Plan of a call before it runs: the runs that are done, that are pending, and that are unavailable on this machine."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from benchmarks.execution import requirements
from benchmarks.execution.recording import is_refusal
from benchmarks.experiment import Experiment, MethodRef, Run, Tier, TierPlan
from results.record import RunRecord
from results.store import Store

State = Literal["done", "pending", "unavailable"]


@dataclass(frozen=True)
class PlannedRun:
    """A run and what is to happen with it.

    `seconds` and `memory` (bytes at its highest) are estimates from earlier records, None without any; `reason` says
    why a run cannot be made here, and `elsewhere` that nothing but this machine is in the way. For a call with a
    deadline: `longest` is the time of the slowest record of the same cell if `exact`, else of the cells whose settings
    differ least from its; `stated` the run's share of the hours that the experiment states; `worth` that of its cell.
    """

    run: Run
    state: State
    seconds: float | None = None
    reason: str | None = None
    memory: int | None = None
    elsewhere: bool = False
    longest: float | None = None
    exact: bool = False
    stated: float = 0.0
    worth: int = 0


@dataclass(frozen=True)
class Needs:
    """Resources that the runs of one experiment without records take, as the experiment itself says.

    `runs` counts them; `hours` is their share of the hours that the tier's own runs take together.
    """

    experiment: str
    runs: int
    hours: float
    tier_plan: TierPlan


@dataclass(frozen=True)
class Plan:
    """All runs of a call in the order in which they are made, and the experiments that this tier does not have.

    `needs` has an entry for every experiment of which something is not done.
    """

    tier: Tier
    runs: tuple[PlannedRun, ...]
    absent: tuple[tuple[str, str], ...] = ()
    needs: tuple[Needs, ...] = ()

    def in_state(self, state: State) -> tuple[PlannedRun, ...]:
        """The runs in one state."""
        return tuple(planned for planned in self.runs if planned.state == state)

    @property
    def seconds(self) -> float | None:
        """Estimate for all that is pending; None where a run has no estimate."""
        estimates = [planned.seconds for planned in self.in_state("pending")]
        known = [seconds for seconds in estimates if seconds is not None]
        return sum(known) if len(known) == len(estimates) else None

    def memory(self, jobs: int = 1) -> int | None:
        """Bytes that the `jobs` largest pending runs need together; None where nothing is known."""
        known = sorted(
            (planned.memory for planned in self.in_state("pending") if planned.memory is not None), reverse=True
        )
        return sum(known[:jobs]) if known else None


def make_plan(
    experiments: Iterable[Experiment],
    tier: Tier,
    store: Store,
    methods: Sequence[MethodRef] = (),
    seeds: Sequence[int] = (),
    force: bool = False,
) -> Plan:
    """Plan a call.

    Args:
        experiments: in their order.
        tier: of all runs.
        store: where finished runs are looked up.
        methods: only these; all of an experiment when empty.
        seeds: only these; those of the tier when empty.
        force: make runs again that are done.
    """
    everything = store.records(tier=tier, status=None)
    records = [record for record in everything if record.status == "finished"]
    done = {(record.config_hash, record.seed) for record in (*records, *filter(is_refusal, everything))}
    of: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        of[record.experiment].append(record)
    runs: dict[tuple[str, int], PlannedRun] = {}  # a cell that two experiments share is run once
    absent: list[tuple[str, str]] = []
    needs: list[Needs] = []
    for experiment in experiments:
        if tier not in experiment.tiers:
            others = ", ".join(experiment.tiers)
            absent.append((experiment.name, experiment.absent.get(tier, f"exists in the tiers {others} only")))
            continue
        sources = experiment.sources(tier)
        reasons = [*(source.missing(tier) for source in sources), requirements.no_hub(sources, tier)]
        new = [run for run in _runs(experiment, tier, methods, seeds) if run.key not in runs]
        stated = _needs(experiment, tier, len(new)).hours * 3600 / max(1, len(new))
        times = {name: _Times(of[name]) for name in {run.cell.experiment for run in new}}
        for run in new:
            planned = _planned(run, run.key in done and not force, reasons, of[run.cell.experiment])
            longest = None if planned.state == "done" else times[run.cell.experiment].longest(run)
            runs[run.key] = replace(planned, longest=longest, stated=stated, worth=experiment.worth(run.cell))
        if left := sum(runs[run.key].state != "done" for run in new):
            needs.append(_needs(experiment, tier, left))
    finished = {(record.config_hash, record.seed) for record in records}
    there = finished | {key for key, one in runs.items() if one.state == "pending"}
    return Plan(tier, tuple(_with_reference(one, there) for one in runs.values()), tuple(absent), tuple(needs))


def _with_reference(planned: PlannedRun, there: Collection[tuple[str, int]]) -> PlannedRun:
    """A run as it is, or unavailable where what it is matched to has no record and is not about to get one."""
    reference = planned.run.reference
    if planned.state != "pending" or reference is None or reference in there:
        return planned
    method = planned.run.cell.settings.reference.method
    reason = f"{planned.run.cell.method} is matched to a run of {method} without a record; run that method and seed too"
    return replace(planned, state="unavailable", reason=reason)


def _needs(experiment: Experiment, tier: Tier, left: int) -> Needs:
    of_tier = experiment.tiers[tier]
    # of an experiment for custom methods alone nothing else is known
    runs = len(_runs(experiment, tier, (), ())) or left
    hours = of_tier.hours * left / runs
    return Needs(experiment.name, left, hours, of_tier)


def _runs(experiment: Experiment, tier: Tier, methods: Sequence[MethodRef], seeds: Sequence[int]) -> list[Run]:
    """Seed by seed, so that an interrupted call leaves whole rows; what is matched to a run comes after it."""
    cells = experiment.cells(tier, tuple(methods) or tuple(MethodRef(name) for name in experiment.methods))
    of_tier = experiment.tiers[tier].seeds
    runs = [Run(cell, seed) for cell in cells for seed in (tuple(seeds) or cell.seeds or of_tier)]
    return sorted(runs, key=lambda run: (run.row, run.reference is not None))


def _planned(run: Run, done: bool, missing: Sequence[str | None], records: Sequence[RunRecord]) -> PlannedRun:
    """A run with what `records` of its experiment tell of it: those of its own cell, or else all of them."""
    own = run.cell.config_hash  # once: it is computed anew every time
    exact = [record for record in records if record.config_hash == own]
    likely = exact or records
    seconds = statistics.median([record.seconds for record in likely]) if likely else None
    planned = PlannedRun(run, "done", seconds, memory=_peak(likely), exact=bool(exact))
    if done:
        return planned
    here = (
        requirements.too_small(run.cell, _peak(exact)),
        requirements.no_compiler(run.cell),
        requirements.no_bfloat16(run.cell),
        requirements.unreachable(run.cell),
    )
    reasons = dict.fromkeys(text for text in (*missing, *here) if text is not None)
    if reasons:
        elsewhere = not any(missing)
        return replace(planned, state="unavailable", reason="; and ".join(reasons), elsewhere=elsewhere)
    return replace(planned, state="pending")


class _Times:
    """Longest time of every cell that an experiment has records of, with its settings; read once for all runs."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        longest: dict[str, RunRecord] = {}
        for record in records:
            known = longest.setdefault(record.config_hash, record)
            longest[record.config_hash] = max(known, record, key=lambda one: one.seconds)
        self._own = {cell: record.seconds for cell, record in longest.items()}
        self._all = [(frozenset(_settings(record.config)), record.seconds) for record in longest.values()]

    def longest(self, run: Run) -> float | None:
        """Seconds of a run's own cell, or of the cells that differ from it in the fewest settings; None without any."""
        own = self._own.get(run.cell.config_hash)
        if own is not None or not self._all:
            return own
        settings = frozenset(_settings(run.cell.config))
        distances = [(len(settings ^ other), seconds) for other, seconds in self._all]
        least = min(distance for distance, _ in distances)
        return max(seconds for distance, seconds in distances if distance == least)


def _settings(config: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, str]]:
    """Every setting of a configuration by its path, as text."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", repr(value)


def _peak(records: Sequence[RunRecord]) -> int | None:
    """Most memory that any of these runs took."""
    known = [record.metrics["peak_memory"].value for record in records if "peak_memory" in record.metrics]
    return int(max(known)) if known else None

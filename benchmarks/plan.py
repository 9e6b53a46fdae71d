"""What a call would do, before it does it: which runs are there already, which cannot be made here, which are to do."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.experiment import Cell, Experiment, MethodRef, Run, Tier
from benchmarks.recording import is_refusal
from results.record import RunRecord
from results.store import Store

State = Literal["there", "to do", "missing"]


@dataclass(frozen=True)
class PlannedRun:
    """A run and what is to happen with it; `seconds` is an estimate from earlier records, None without any."""

    run: Run
    state: State
    seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Plan:
    """All runs of a call in the order in which they are made, and the experiments that this tier does not have."""

    tier: Tier
    runs: tuple[PlannedRun, ...]
    absent: tuple[tuple[str, str], ...] = ()

    def in_state(self, state: State) -> tuple[PlannedRun, ...]:
        """The runs in one state."""
        return tuple(planned for planned in self.runs if planned.state == state)

    @property
    def seconds(self) -> float | None:
        """Estimate for all that is to do; None where a run has no estimate."""
        estimates = [planned.seconds for planned in self.in_state("to do")]
        known = [seconds for seconds in estimates if seconds is not None]
        return sum(known) if len(known) == len(estimates) else None


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
        force: make runs again that are there.
    """
    everything = store.records(tier=tier, status=None)
    records = [record for record in everything if record.status == "finished"]
    done = {(record.config_hash, record.seed) for record in (*records, *filter(is_refusal, everything))}
    runs: list[PlannedRun] = []
    absent: list[tuple[str, str]] = []
    for experiment in experiments:
        if tier not in experiment.tiers:
            there = ", ".join(experiment.tiers)
            absent.append((experiment.name, experiment.absent.get(tier, f"exists in the tiers {there} only")))
            continue
        reasons = [source.missing(tier) for source in experiment.sources(tier)]
        reason = next((text for text in reasons if text is not None), None)
        for run in _runs(experiment, tier, methods, seeds):
            seconds = _estimate(records, run.cell)
            if (run.cell.config_hash, run.seed) in done and not force:
                runs.append(PlannedRun(run, "there", seconds))
            elif reason is not None:
                runs.append(PlannedRun(run, "missing", seconds, reason))
            else:
                runs.append(PlannedRun(run, "to do", seconds))
    return Plan(tier, tuple(runs), tuple(absent))


def _runs(experiment: Experiment, tier: Tier, methods: Sequence[MethodRef], seeds: Sequence[int]) -> list[Run]:
    """Seed by seed, so that an interrupted call leaves whole rows of the first seeds."""
    own = tuple(MethodRef(name) for name in experiment.methods)
    cells = experiment.cells(tier, tuple(methods) or own)
    return [Run(cell, seed) for seed in (tuple(seeds) or experiment.tiers[tier].seeds) for cell in cells]


def _estimate(records: Sequence[RunRecord], cell: Cell) -> float | None:
    """Median time of the same cell's earlier runs, or else of the same experiment's."""
    same = [record for record in records if record.experiment == cell.experiment]
    exact = [record.seconds for record in same if record.config_hash == cell.config_hash]
    seconds = exact or [record.seconds for record in same]
    return statistics.median(seconds) if seconds else None

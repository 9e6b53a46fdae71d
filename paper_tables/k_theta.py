"""The grid of K and theta: cells by their two values, and what changing one of them does, averaged over the other."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paper_tables.cells import Cell, Comparison, by_model, compare
from paper_tables.formats import difference
from paper_tables.intervals import Interval, mean_interval
from paper_tables.verdicts import Judge, Verdict, decide, needs
from results import RunRecord

EXPERIMENT = "k_theta_sweep"
FROM_SCRATCH, TRAINED = "from scratch", "trained"
STAGES = {FROM_SCRATCH: "pre-training", TRAINED: "fine-tuning"}

Axis = Literal["top_k", "theta"]


@dataclass(frozen=True)
class Point:
    """One K and theta, shares in (0, 1], and its cell."""

    top_k: float
    theta: float
    cell: Cell


@dataclass(frozen=True)
class Stage:
    """One stage: all its cells, and those of the grid, by K and then by theta."""

    comparison: Comparison
    points: tuple[Point, ...]


def stages(records: Sequence[RunRecord]) -> dict[str, Stage]:
    """Return the stages that there are records of, pre-training first."""
    found = by_model([record for record in records if record.experiment == EXPERIMENT])
    names = [name for name in STAGES if name in found] + sorted(set(found) - set(STAGES))
    return {name: _stage(found[name]) for name in names}


def effect(points: Sequence[Point], axis: Axis) -> Interval | None:
    """Return perplexity at the largest value of one axis minus that at the smallest, over seeds; None without both.

    Every seed's difference is the mean over the values of the other axis that it has at both ends.
    """
    values = sorted({_value(point, axis) for point in points})
    if len(values) < 2:
        return None
    scores = {(_value(p, axis), _other(p, axis)): p.cell.values("perplexity") for p in points}
    differences: dict[int, list[float]] = {}
    for other in sorted({_other(point, axis) for point in points}):
        low, high = scores.get((values[0], other), {}), scores.get((values[-1], other), {})
        for seed in low.keys() & high.keys():
            differences.setdefault(seed, []).append(high[seed] - low[seed])
    return mean_interval(statistics.fmean(own) for own in differences.values()) if differences else None


def better(axis: Axis, stage: str, *, larger: bool) -> Judge:
    """Return the judge of "a larger (or smaller) value of an axis has a lower perplexity" in a stage."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        points = found.points if (found := stages(records).get(stage)) is not None else ()
        measured = effect(points, axis)
        if measured is None:
            return needs(f"python -m benchmarks run {EXPERIMENT} --tier {tier}")
        own = measured if larger else measured.mirrored()
        kind, detail = decide(own, 0.0, full_scale=tier == "paper")
        ids = tuple(record_id for point in points for record_id in point.cell.ids)
        ends = "largest minus smallest" if larger else "smallest minus largest"
        return Verdict(kind, detail, f"perplexity, {ends}: {difference(own)}", own.n, ids)

    return judge


def _stage(records: Sequence[RunRecord]) -> Stage:
    comparison = compare(records)
    points = [
        Point(float(own["top_k"]), float(own["importance_threshold"]), cell)
        for cell in comparison.cells
        if cell.target is not None
        and "top_k" in (own := cell.records[0].config.get("method_config") or {})
        and "importance_threshold" in own
    ]
    return Stage(comparison, tuple(sorted(points, key=lambda point: (point.top_k, point.theta))))


def _value(point: Point, axis: Axis) -> float:
    return point.top_k if axis == "top_k" else point.theta


def _other(point: Point, axis: Axis) -> float:
    return point.theta if axis == "top_k" else point.top_k

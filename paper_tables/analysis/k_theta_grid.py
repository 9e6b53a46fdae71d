"""The grid of K and theta: cells by their two values, and what changing one of them does, averaged over the other."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paper_tables.analysis.cells import (
    Cell,
    Comparison,
    by_model,
    compare,
)
from paper_tables.analysis.intervals import Interval, mean_interval
from paper_tables.analysis.losses import losses
from results import RunRecord

EXPERIMENT = "k_theta_sweep"
FROM_SCRATCH, TRAINED = "from scratch", "trained"
SHARED_MODEL = "GPT-2, 4 layers"
"""Name of the model that the from-scratch experiments of tier cpu share; the stages of other tiers name themselves."""
SAME_SIZE = 0.02
"""By how much the block parameters of two ends may differ, as a share: sizes come in steps of a width."""
_OF_GRID = re.compile(r"ecospa_k\d+_theta\d+")
"""Names of the methods of the grid; another method has a K and a theta in its settings, too."""
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

    @property
    def others(self) -> tuple[Cell, ...]:
        """The cells that are not of the grid: the control and custom methods."""
        own = {point.cell.method for point in self.points}
        return tuple(cell for cell in self.comparison.cells if cell.method not in own)


def stages(records: Sequence[RunRecord]) -> dict[str, Stage]:
    """Return the stages that there are records of, pre-training first.

    Args:
        records: of the experiment, and those that it borrows.
    """
    found: dict[str, list[RunRecord]] = {}
    for model, own in by_model(records).items():
        found.setdefault(FROM_SCRATCH if model == SHARED_MODEL else model, []).extend(own)
    names = [name for name in STAGES if name in found] + sorted(set(found) - set(STAGES))
    return {name: _stage(found[name]) for name in names}


def effect(points: Sequence[Point], axis: Axis) -> Interval | None:
    """Return nats per token at the largest value of one axis minus that at the smallest, over seeds; None without both.

    Every seed's difference is the mean over the values of the other axis that were run at both ends. Seeds that lack
    one of them are left out: their mean would be about another grid.
    """
    both = axis_ends(points, axis)
    if both is None:
        return None
    pairs = [(losses(low.cell), losses(high.cell)) for low, high in both]
    seeds = set.intersection(*(low.keys() & high.keys() for low, high in pairs))
    if not seeds:
        return None
    return mean_interval(statistics.fmean(high[seed] - low[seed] for low, high in pairs) for seed in sorted(seeds))


def axis_ends(points: Sequence[Point], axis: Axis) -> list[tuple[Point, Point]] | None:
    """Return (smallest, largest value of an axis) at every value of the other that has both; None without any."""
    values = sorted({_value(point, axis) for point in points})
    at = {(_value(point, axis), _other(point, axis)): point for point in points}
    others = sorted({_other(point, axis) for point in points})
    found = [
        (at[values[0], other], at[values[-1], other])
        for other in others
        if len(values) > 1 and {(values[0], other), (values[-1], other)} <= at.keys()
    ]
    return found or None


def at_one_size(points: Sequence[Point], axis: Axis) -> bool:
    """Return whether both ends of an axis have known block parameters that agree, at every value of the other."""
    sizes = [[point.cell.interval("block_parameters") for point in pair] for pair in axis_ends(points, axis) or ()]
    return bool(sizes) and all(
        low is not None and high is not None and abs(low.mean / high.mean - 1) <= SAME_SIZE for low, high in sizes
    )


def _stage(records: Sequence[RunRecord]) -> Stage:
    comparison = compare(records)
    points = [
        Point(float(own["top_k"]), float(own["importance_threshold"]), cell)
        for cell in comparison.cells
        if _OF_GRID.fullmatch(cell.method)
        and cell.target is not None
        and "top_k" in (own := cell.records[0].config.get("method_config") or {})
        and "importance_threshold" in own
    ]
    return Stage(comparison, tuple(sorted(points, key=lambda point: (point.top_k, point.theta))))


def _value(point: Point, axis: Axis) -> float:
    return point.top_k if axis == "top_k" else point.theta


def _other(point: Point, axis: Axis) -> float:
    return point.theta if axis == "top_k" else point.top_k

"""Curves of several seeds as one line with a band, and sizes over steps; shared by the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paper_tables.cells import Cell, Comparison
from results import RunRecord

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Band:
    """A mean curve with the lowest and highest value over seeds, all of the same length."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def band(curves: Sequence[Points]) -> Band | None:
    """Return mean, lowest and highest of `curves` where all of them reach, between points by straight lines."""
    arrays = [np.asarray(curve, dtype=np.float64) for curve in curves if len(curve) > 1]
    if not arrays:
        return None
    first, last = max(array[0, 0] for array in arrays), min(array[-1, 0] for array in arrays)
    x = arrays[0][:, 0]
    x = x[(x >= first) & (x <= last)]
    if not len(x):
        return None
    values = np.stack([np.interp(x, array[:, 0], array[:, 1]) for array in arrays])
    return Band(x, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def smooth(points: Points, window: int) -> list[tuple[float, float]]:
    """Return the running mean of a curve over the last `window` points: the loss of a single batch is noise."""
    if not len(points):
        return []
    values = np.asarray([y for _, y in points], dtype=np.float64)
    sums = np.cumsum(np.concatenate(([0.0], values)))
    stops = np.arange(1, len(values) + 1)
    starts = np.maximum(0, stops - window)
    means = (sums[stops] - sums[starts]) / (stops - starts)
    return [(float(x), float(mean)) for (x, _), mean in zip(points, means, strict=True)]


def dense_blocks(comparison: Comparison) -> int:
    """Return the block parameters of the dense model, the largest start of any run; 0 if no record has a history."""
    starts = (record.plan_history[0].block_parameters for record in comparison.records if record.plan_history)
    return max(starts, default=0)


def last_step(record: RunRecord) -> int:
    """Return the last step that a record tells of: of its configuration, its loss curve or its history."""
    configured = record.config.get("training", {}).get("steps", 0)
    curve = record.loss_curve[-1][0] if record.loss_curve else 0
    history = record.plan_history[-1].step if record.plan_history else 0
    return max(int(configured), curve, history)


def sizes(record: RunRecord, dense: int) -> list[tuple[float, float]]:
    """Return (step, share of the dense block parameters) after every event, prolonged to the end of the run."""
    points = [(float(event.step), event.block_parameters / dense) for event in record.plan_history]
    return [*points, (float(last_step(record)), points[-1][1])] if points else []


def at_target(comparison: Comparison, target: float) -> list[Cell]:
    """Return the cells of a panel: those at `target` and those that know no target."""
    return [cell for cell in comparison.cells if cell.target in (None, target)]

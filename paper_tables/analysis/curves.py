"""Curves of several seeds as one line with a band, sizes over steps, and the panels of one experiment."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paper_tables.analysis.cells import (
    GLUE_TASKS,
    Cell,
    Comparison,
    compare,
    shape,
)
from paper_tables.analysis.context import from_weights
from paper_tables.analysis.fine_tuning_grid import METHOD, one_pair, shown_pair
from paper_tables.analysis.formats import share
from paper_tables.methods import label
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


def at_target(comparison: Comparison, target: float | None) -> list[Cell]:
    """Return the cells of a panel: those at `target` and those that know no target."""
    return [cell for cell in comparison.cells if cell.target in (None, target)]


@dataclass(frozen=True)
class Panel:
    """Content of one panel of an experiment: cells that may be compared, at one target (None: none has a target)."""

    title: str
    comparison: Comparison
    target: float | None

    @property
    def cells(self) -> list[Cell]:
        """The cells at the target, and those that know no target."""
        return at_target(self.comparison, self.target)


def panels_of(records: Sequence[RunRecord]) -> list[Panel]:
    """Return the panels of one experiment that trains: one per target, or per setting at its smallest target.

    A setting is a model by name and shape on a data set by name; where runs of one setting differ in anything else,
    `compare` takes the largest set that belongs together. Of a grid of K and theta one pair is shown (`pair_notes`).
    """
    groups: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for record in one_pair(from_weights(records)):
        if record.status == "finished" and record.loss_curve:
            groups[json.dumps(_names(record), sort_keys=True)].append(record)
    found = [(json.loads(names), compare(own)) for names, own in groups.items()]
    if len(found) == 1:
        comparison = found[0][1]
        return [Panel(_kept(target), comparison, target) for target in comparison.targets or (None,)]
    common = set.intersection(*(set(names.items()) for names, _ in found)) if found else set()
    models = [names.get("model name") for names, _ in found]
    return [
        Panel(", ".join((*_differing(names, common, models), *filter(None, [_kept(target)]))), comparison, target)
        for names, comparison in found
        for target in (comparison.targets or (None,))[-1:]
    ]


def pair_notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return which K and theta the panels show, where an experiment has a grid of them."""
    pair = shown_pair(records)
    if pair is None:
        return ()
    return (f"Curves over steps show {label(METHOD)} at K {pair[0]:.2f} and theta {pair[1]:.2f} alone.",)


def _names(record: RunRecord) -> dict[str, str]:
    """Return what is named in the model and the data of a record, and the shape of the model."""
    parts = {part: record.config.get(part) for part in ("model", "data")}
    width, layers = shape(record)
    size = {"model": f"{layers} layers of {width}"} if width and layers else {}
    return size | {
        f"{part} {key}": value
        for part, settings in parts.items()
        if isinstance(settings, dict)
        for key, value in settings.items()
        if isinstance(value, str)
    }


def _differing(names: dict[str, str], common: set[tuple[str, str]], models: Sequence[str | None]) -> list[str]:
    """Return what tells a setting from the others: the name of its model where all have one of their own."""
    if None not in models and len(set(models)) == len(models):
        return [names["model name"]]
    told = [value for key, value in sorted(names.items(), reverse=True) if (key, value) not in common]
    return [GLUE_TASKS.get(value, value) for value in told]


def _kept(target: float | None) -> str:
    return "" if target is None else f"{share(target)} of the block parameters kept"

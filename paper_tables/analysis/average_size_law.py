"""Loss against the average number of parameters of a run: is shrinking more than its average size?

Source: Jin et al., "The Journey Matters", arXiv 2501.12486: at equal tokens the loss of a run that prunes follows the
scaling law of dense models at N = the mean of its parameter count over steps, L = E + A / N^alpha + B / D^beta.
Deviation: three sizes do not determine E, A and alpha, so the law is a straight line over log N between them,
L = a + b log N, fitted by least squares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.intervals import Interval, mean_interval

AVERAGE, LOSS = "average_block_parameters", "eval_loss"
CONSTANT = ("dense", "small_dense", "dense_average_size")
"""Uniform models of one size from first step to last: what the line goes through."""


@dataclass(frozen=True)
class Line:
    """L = at_one + slope log N, in nats per token, with the smallest and largest N that it was fitted to."""

    at_one: float
    slope: float
    low: float
    high: float

    def loss(self, size: float) -> float:
        """Return the loss at an average size."""
        return self.at_one + self.slope * math.log(size)


def fitted(sizes: Mapping[str, float], losses: Mapping[str, float]) -> Line | None:
    """Return the line through (size, loss) of the models that both have; None below two sizes."""
    found = sorted((sizes[name], losses[name]) for name in sizes.keys() & losses.keys() if sizes[name] > 0)
    if len({size for size, _ in found}) < 2:
        return None
    slope, at_one = np.polyfit(np.log([size for size, _ in found]), [loss for _, loss in found], 1)
    return Line(float(at_one), float(slope), found[0][0], found[-1][0])


def mean_line(cells: Sequence[Cell]) -> Line | None:
    """Return the line through the means over seeds of the constant models, trained for as many steps as the dense."""
    found = _constant(cells)
    return fitted(*({name: _mean(cell, metric) for name, cell in found.items()} for metric in (AVERAGE, LOSS)))


def above_line(cell: Cell, cells: Sequence[Cell]) -> Interval | None:
    """Return by how many nats per token a method lies above the line of its own seed; None without a common seed.

    Seed by seed: what seeds have in common must not blur the difference.
    """
    constant = _constant(cells)
    sizes, losses = cell.values(AVERAGE), cell.values(LOSS)
    found = []
    for seed in sorted(sizes.keys() & losses.keys()):
        own = {name: other for name, other in constant.items() if seed in other.values(AVERAGE).keys()}
        line = fitted(
            *({name: other.values(metric)[seed] for name, other in own.items()} for metric in (AVERAGE, LOSS))
        )
        if line is not None and len(own) == len(constant):
            found.append(losses[seed] - line.loss(sizes[seed]))
    return mean_interval(found) if found else None


def _constant(cells: Sequence[Cell]) -> dict[str, Cell]:
    known = {
        cell.method: cell
        for cell in cells
        if cell.method in CONSTANT and cell.interval(AVERAGE) is not None and cell.interval(LOSS) is not None
    }
    steps = _steps(known["dense"]) if "dense" in known else None
    return {name: cell for name, cell in known.items() if _steps(cell) == steps}


def _steps(cell: Cell) -> object:
    return (cell.records[0].config.get("training") or {}).get("steps")


def _mean(cell: Cell, metric: str) -> float:
    found = cell.interval(metric)
    return math.nan if found is None else found.mean

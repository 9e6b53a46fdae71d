"""Comparability of two cells: trained for as long, on the same curve, measured on the same device.

A difference is the method's only if nothing else differs; a store keeps runs of many settings and machines.
"""

from __future__ import annotations

from typing import Any

from paper_tables.analysis.cells import Cell, device_name

TRAINING = ("steps", "batch_size")
"""Settings that must agree: a learning rate belongs to a method, as GaLore's own does."""
CURVE = ("curve", "start_step", "end_step", "interval")
"""Size over steps; who stays large longer learns more."""
TWICE = "dense_twice_steps"
_ON_CURVE = ("uncoupled", "uncoupled_importance", "random_pairs", "magnitude")
"""Methods of which a claim is "on the same curve"; all measures of importance too."""


def unequal(ours: Cell, theirs: Cell) -> str:
    """Return what differs in the training of two cells, "steps 200 against 400, interval 3 against 5"; else "".

    A dense model that is meant to have twice the steps has just those.
    """
    parts = [_differing(ours, theirs, "training", TRAINING)]
    if theirs.method in _ON_CURVE or theirs.method.startswith("importance_"):
        parts.append(_differing(ours, theirs, "method_config", CURVE))
    return ", ".join(text for part in parts for text in part)


def same_device(ours: Cell, theirs: Cell, metric: str) -> tuple[dict[int, float], dict[int, float]]:
    """Return the values of a metric by seed, of those seeds that both cells ran on one device.

    Times and bytes of two machines differ whatever the method is.
    """
    machines = [{record.seed: device_name(record) for record in cell.records} for cell in (ours, theirs)]
    shared = {seed for seed in machines[0].keys() & machines[1].keys() if machines[0][seed] == machines[1][seed]}
    first, second = ({s: v for s, v in cell.values(metric).items() if s in shared} for cell in (ours, theirs))
    return first, second


def _differing(ours: Cell, theirs: Cell, part: str, names: tuple[str, ...]) -> list[str]:
    # All records of a cell have one configuration.
    mine, other = (cell.records[0].config.get(part) or {} for cell in (ours, theirs))
    wanted = {name: _wanted(mine.get(name), name, theirs.method) for name in names}
    return [f"{name} {value} against {other.get(name)}" for name, value in wanted.items() if value != other.get(name)]


def _wanted(value: Any, name: str, method: str) -> Any:
    return 2 * value if method == TWICE and name == "steps" and value is not None else value

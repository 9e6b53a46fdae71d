"""Comparability of two cells: trained for as long, on the same curve, by the same code, measured on the same device.

A difference is the method's only if nothing else differs; a store keeps runs of many settings and machines.
"""

from __future__ import annotations

from typing import Any

from paper_tables.analysis.cells import Cell, device_name
from paper_tables.analysis.context import TRAINING, TWICE
from results import RunRecord

CURVE = ("curve", "start_step", "end_step", "interval")
"""Size over steps; who stays large longer learns more."""
DIRTY, MIXED = "dirty", "mixed code"
_ON_CURVE = (*("uncoupled", "uncoupled_importance", "random_pairs", "random_indices", "uniform_pairs", "magnitude"),)
"""Methods of which a claim is "on the same curve"; all measures of importance too."""


def unequal(ours: Cell, theirs: Cell) -> str:
    """Return what differs in the training of two cells, "steps 200 against 400, interval 3 against 5"; else "".

    A dense model that is meant to have twice the steps has just those.
    """
    parts = [_differing(ours, theirs, "training", TRAINING)]
    if theirs.method in _ON_CURVE or theirs.method.startswith("importance_"):
        parts.append(_differing(ours, theirs, "method_config", CURVE))
    return ", ".join(text for part in parts for text in part)


def flaw(ours: Cell, theirs: Cell | None = None) -> str:
    """Return why the records of a comparison cannot carry a verdict: "dirty", "mixed code", or both; else "".

    Code is compared seed by seed, as values are: every difference is then between two runs of one code.

    Args:
        ours: one side.
        theirs: the other; None where a record measures both sides in one process.
    """
    if theirs is None:
        return DIRTY if any(record.dirty for record in ours.records) else ""
    mine, other = ({record.seed: record for record in cell.records} for cell in (ours, theirs))
    pairs = [(mine[seed], other[seed]) for seed in sorted(mine.keys() & other.keys())]
    dirty = any(record.dirty for pair in pairs for record in pair)
    mixed = any(code(left) != code(right) for left, right in pairs)
    return ", ".join(text for text, present in ((DIRTY, dirty), (MIXED, mixed)) if present)


def code(record: RunRecord) -> str:
    """Return what tells the code of two runs apart: a digest of the sources, or the commit in records without one."""
    return record.versions.get("code", record.commit)


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

"""Findings of `failure_signatures`: what was told of each run, in how many seeds, and when first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from paper_tables.analysis.cells import Cell, compare
from paper_tables.analysis.intervals import Interval, mean_interval
from results import RunRecord

IRREGULAR = "irregular_widths"
RUNS = {
    "healthy": "healthy",
    "early_and_steep": "early and steep",
    "reversed_importance": "reversed importance",
    "first_block": "always the first block",
}
"""Runs by method, in the order of the table; those that records hold besides come after them."""


@dataclass(frozen=True)
class Told:
    """One signature of one run over the seeds in which it was told, or `signature` None: seeds with nothing told.

    Attributes:
        seeds: how many.
        values: means and intervals of step, since, before and after, of the first telling of every seed.
    """

    signature: str | None
    seeds: int
    values: dict[str, Interval]


def runs(records: Sequence[RunRecord]) -> list[Cell]:
    """Return the runs that were watched, in the order of RUNS."""
    cells = compare([record for record in records if record.method != IRREGULAR]).cells
    order = list(RUNS)
    return sorted(cells, key=lambda cell: order.index(cell.method) if cell.method in order else len(order))


def title(cell: Cell) -> str:
    """Return the name of a run for people."""
    return RUNS.get(cell.method, cell.method)


def told(cell: Cell) -> list[Told]:
    """Return what was told of a run, the earliest first, and then in how many seeds nothing was."""
    firsts = [first_findings(record) for record in cell.records]
    signatures = list(dict.fromkeys(name for found in firsts for name in found))
    made = [_told(name, [found[name] for found in firsts if name in found]) for name in signatures]
    made.sort(key=lambda one: one.values["step"].mean)
    silent = sum(not found for found in firsts)
    return [*made, Told(None, silent, {})] if silent else made


def first_findings(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Return signature -> its first finding in a run."""
    found: dict[str, dict[str, Any]] = {}
    for one in record.payload.get("findings", []):
        found.setdefault(one["signature"], one)
    return found


def width_rows(records: Iterable[RunRecord]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return (precision, name of the widths) -> its row of every seed, of the runs that time irregular widths."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in compare([one for one in records if one.method == IRREGULAR]).records:
        for row in record.payload.get("widths", []):
            found.setdefault((row["precision"], row["name"]), []).append(row)
    return found


def _told(signature: str, findings: Sequence[dict[str, Any]]) -> Told:
    fields = {
        field: [float(one[field]) for one in findings if one.get(field) is not None]
        for field in ("step", "since", "before", "after")
    }
    return Told(signature, len(findings), {field: mean_interval(own) for field, own in fields.items() if own})

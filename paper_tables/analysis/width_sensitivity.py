"""Curves of `sparsity_limits`: perplexity, relative to the dense model's, against the width that one part keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paper_tables.analysis.cells import Cell, compare
from paper_tables.analysis.intervals import Interval, mean_interval
from results import RunRecord

PARTS = {
    "qk": "query and key",
    "vo": "value and output",
    "ffn": "feed-forward",
    "early": "early third",
    "middle": "middle third",
    "late": "late third",
}
KINDS, DEPTHS = tuple(PARTS)[:3], tuple(PARTS)[3:]
STATES = {"cut": "after the cut", "recovered": "after recovery"}


@dataclass(frozen=True)
class Part:
    """One part over seeds.

    Attributes:
        cell: its records.
        curves: state -> {width kept: perplexity over that of the dense model}, mean and interval over seeds.
        breaks: state -> width at which it breaks, over the seeds in which it does.
        unbroken: state -> seeds in which it does not.
        block_shares: width kept -> share of the block parameters left, of the first record.
    """

    cell: Cell
    curves: dict[str, dict[float, Interval]]
    breaks: dict[str, Interval]
    unbroken: dict[str, int]
    block_shares: dict[float, float]


def parts(records: Sequence[RunRecord]) -> dict[str, Part]:
    """Return the parts that have a curve, kinds before depths."""
    cells = {cell.method: cell for cell in compare(records).cells if _rows(cell.records[0])}
    names = [name for name in PARTS if name in cells] + sorted(set(cells) - set(PARTS))
    return {name: _part(cells[name]) for name in names}


def _part(cell: Cell) -> Part:
    curves, breaks, unbroken = {}, {}, {}
    for state in STATES:
        ratios: dict[float, list[float]] = {}
        for record in cell.records:
            rows = _rows(record)
            for row in rows:
                ratios.setdefault(row["width"], []).append(row[f"perplexity_{state}"] / rows[0][f"perplexity_{state}"])
        curves[state] = {width: mean_interval(values) for width, values in ratios.items()}
        points = cell.values(f"break_point_{state}")
        unbroken[state] = len(cell.records) - len(points)
        if points:
            breaks[state] = mean_interval(points.values())
    shares = {row["width"]: row["block_share"] for row in _rows(cell.records[0])}
    return Part(cell, curves, breaks, unbroken, shares)


def _rows(record: RunRecord) -> list[dict[str, float]]:
    found: list[dict[str, float]] = record.payload.get("curve", [])
    return found

"""Width left by kind of pair: what a way of choosing pairs really cuts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.intervals import Interval, mean_interval
from results import RunRecord

KINDS = {"qk": "query and key", "vo": "value and output", "ffn": "feed-forward"}


def whole_widths(records: Sequence[RunRecord]) -> Mapping[str, int]:
    """Return the width of every pair of the largest model that any run began with."""
    starts = [record.plan_history[0] for record in records if record.plan_history and record.plan_history[0].widths]
    return max(starts, key=lambda event: event.block_parameters).widths if starts else {}


def widths_left(cell: Cell, whole: Mapping[str, int]) -> dict[str, Interval]:
    """Return kind -> share of the width that is left at the end, the mean over its pairs, and its interval over seeds.

    Args:
        cell: whose records.
        whole: width of every pair before anything was cut.
    """
    found: dict[str, list[float]] = {}
    for record in cell.records:
        last = record.plan_history[-1].widths if record.plan_history else {}
        for kind in KINDS:
            shares = [last[name] / whole[name] for name in last if name.rpartition(".")[2] == kind and name in whole]
            if shares:
                found.setdefault(kind, []).append(statistics.fmean(shares))
    return {kind: mean_interval(values) for kind, values in found.items()}

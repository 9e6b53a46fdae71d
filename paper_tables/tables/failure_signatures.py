"""Failures on purpose and what the library told of them (the failure signatures of the paper's summary)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import Cell, protocol_notes, provenance
from paper_tables.analysis.failure_signatures import IRREGULAR, Told, runs, title, told
from paper_tables.analysis.formats import NOTHING, quantity
from paper_tables.item import Table
from results import RunRecord


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per run and signature that was told of it, or of nothing told."""
    return pd.DataFrame([_row(cell, one) for cell in runs(records) for one in told(cell)])


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the protocol of the watched runs."""
    return protocol_notes([record for record in records if record.method != IRREGULAR])


def _row(cell: Cell, one: Told) -> dict[str, str]:
    return {
        "Run": title(cell),
        "Told": one.signature or "nothing",
        "In seeds": f"{one.seeds} of {len(cell.records)}",
        "At step": _step(one, "step"),
        "Of the cut at step": _step(one, "since"),
        "Loss compared with": quantity(one.values.get("before")),
        "Loss": quantity(one.values.get("after")),
        "Perplexity at the end": quantity(cell.interval("perplexity")),
        **provenance(cell),
    }


def _step(one: Told, field: str) -> str:
    found = one.values.get(field)
    return NOTHING if found is None else f"{found.mean:.0f}"


ITEM = Table(
    name="failure_signatures",
    title="Failures on purpose: what the library told",
    caption="Divergence and plateau compare the training loss after the first cut that it has not recovered from with "
    "that before it (ecospa.LossWatch). A reversed ranking compares the loss with the pairs that the importance calls "
    "least important at half of their width with the same of the most important ones, before a cut "
    "(ecospa.check_ranking). First telling of a seed; mean over seeds ± half the width of the 95% interval.",
    experiments=("failure_signatures",),
    build=build,
    notes=notes,
    place=46,
)

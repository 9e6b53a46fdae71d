"""BERT on SQuAD at half of its blocks: every pair of K and theta of EcoSpa vs. the other methods."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.fine_tuning_grid import (
    SQUAD,
    Grid,
    dense_cell,
    minus_dense,
    others,
    surface,
    unanswered,
)
from paper_tables.analysis.formats import NOTHING, difference, quantity, share
from paper_tables.claims.published import BERT_SQUAD, numbers
from paper_tables.item import Table
from paper_tables.methods import label
from paper_tables.metrics import Column, headers
from results import RunRecord

COST: tuple[Column, ...] = (
    "parameters",
    "block_parameters",
    "shrink_events",
    "run_flops",
    "step_time",
    "final_step_time_ratio",
    "peak_memory",
)
COLUMNS: tuple[Column, ...] = ("exact_match", "f1", *COST)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per method, for EcoSpa at its own pace one per K and theta."""
    return map_table(records, SQUAD, COLUMNS)


def map_table(records: Sequence[RunRecord], grid: Grid, columns: Sequence[Column]) -> pd.DataFrame:
    """Return the rows of a task over K and theta, each with its distance to the dense model, paired by seed."""
    dense = dense_cell(records)
    rows = [_row(cell, NOTHING, NOTHING, dense, grid, columns) for cell in others(records)]
    rows += [
        _row(cell, f"{k:.2f}", f"{theta:.2f}", dense, grid, columns) for (k, theta), cell in surface(records).items()
    ]
    return without_empty_columns(pd.DataFrame(rows))


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return what an answer that reads nothing gets, the protocol, and what the literature has for trained weights."""
    found = cells_of(records)
    if not found:
        return ()
    trivial = [quantity(found[0].interval(f"first_words_{name}")) for name in ("exact_match", "f1")]
    published = [number for number in numbers() if number.setting == BERT_SQUAD and number.metric == "F1"]
    values = "; ".join(f"{number.method} {number.value:g}" for number in published)
    source = ", ".join(dict.fromkeys(number.reference for number in published))
    return (
        f"An answer that reads no question, the first words of the context: exact match {trivial[0]}, F1 {trivial[1]}. "
        "A row near it says nothing about its method.",
        *answering_notes(records, SQUAD),
        *protocol_notes([record for cell in found for record in cell.records]),
        f"Published F1 for BERT-base from trained weights: {values}. Source: {source}.",
    )


def cells_of(records: Sequence[RunRecord]) -> list[Cell]:
    """Return all cells but those of the surface, and of these one: they have one protocol."""
    return [*others(records), *list(surface(records).values())[:1]]


def answering_notes(records: Sequence[RunRecord], grid: Grid) -> tuple[str, ...]:
    """Return a line where the dense model does not master the task; none where it does."""
    reason = unanswered(records, grid)
    return (f"Nothing is decided here: {reason}.",) if reason else ()


def _row(cell: Cell, k: str, theta: str, dense: Cell | None, grid: Grid, columns: Sequence[Column]) -> dict[str, str]:
    less = None if cell.method == "dense" else minus_dense(cell, dense, grid)
    beside = {headers(columns)[grid.metric]: {"Minus dense": NOTHING if less is None else difference(less)}}
    numbers = measured(cell, columns).items()
    return {
        "Method": label(cell.method),
        "K": k,
        "Theta": theta,
        "Blocks kept": NOTHING if cell.target is None else share(cell.target),
        **{name: text for header, value in numbers for name, text in {header: value, **beside.get(header, {})}.items()},
        **provenance(cell),
    }


ITEM = Table(
    name="bert_squad",
    title="BERT on SQuAD: K and theta",
    caption="Exact match and F1 in percent; mean over seeds ± half the width of the 95% interval (Student's t). Minus "
    "dense: points of F1, paired by seed, with the 95% interval. K: share of the pairs that an event may cut; theta: "
    "share of a pair's scores that it keeps. At its own pace EcoSpa goes as fast as K and theta let it; rows without "
    "them share one size over steps. Blocks kept is the target.",
    experiments=("bert_squad",),
    build=build,
    notes=notes,
    place=12,
)

"""Contract of a table or a plot: a name, a title, the experiments it reads, and a function of records.

Two frozen dataclasses instead of a base class: an item has no behaviour of its own, only a pure function.
`place` orders items in the report, small numbers first; a custom item comes after those that have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from paper_tables.analysis.shared_cells import of_experiment
from results import RunRecord

RECORDS = "Records"
"""Name of the column that holds the ids behind a row, separated by spaces; shown as provenance, not as a column."""

Notes = Callable[[Sequence[RunRecord]], tuple[str, ...]]


def no_notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return no lines: for items that explain themselves."""
    return ()


@dataclass(frozen=True)
class Table:
    """A table: `build` turns the records of its experiments (none named: all) into rows of text; maybe no rows.

    `failed` tables show what went wrong, too: they are given the records of failed runs besides the finished ones.
    """

    kind: ClassVar[str] = "table"
    name: str
    title: str
    caption: str
    experiments: tuple[str, ...]
    build: Callable[[Sequence[RunRecord]], pd.DataFrame]
    notes: Notes = no_notes
    place: int = 50
    failed: bool = False


@dataclass(frozen=True)
class Plot:
    """A figure: `build` turns the records of its experiments into a matplotlib Figure; None if nothing to show.

    `each`: it says something of every experiment that trains, and is drawn once for each that has records.
    """

    kind: ClassVar[str] = "figure"
    name: str
    title: str
    caption: str
    experiments: tuple[str, ...]
    build: Callable[[Sequence[RunRecord]], Figure | None]
    notes: Notes = no_notes
    place: int = 50
    each: bool = False

    def of(self, experiment: str) -> Plot:
        """Return this figure for one experiment, with a name of its own."""
        return replace(self, name=f"{self.name}_{experiment}", experiments=(experiment,), each=False)


Item = Table | Plot


def for_records(items: Sequence[Item], records: Sequence[RunRecord]) -> list[Item]:
    """Return `items` with every figure that is drawn for each experiment in place of those for the experiments."""
    experiments = sorted({record.experiment for record in records if record.status == "finished"})
    return [
        own
        for item in items
        for own in ([item.of(name) for name in experiments] if isinstance(item, Plot) and item.each else [item])
    ]


def records_of(item: Item, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records that `item` reads: the finished ones, and the failed ones where it asks for them.

    Among them are those that its experiments borrow, see `paper_tables.analysis.shared_cells`.
    """
    everything = isinstance(item, Table) and item.failed
    read = {record.id for name in item.experiments for record in of_experiment(records, name)}
    return [
        record
        for record in records
        if (everything or record.status == "finished") and (not item.experiments or record.id in read)
    ]

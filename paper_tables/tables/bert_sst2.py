"""A pretrained BERT on SST-2 at half of its blocks: every pair of K and theta of EcoSpa vs. the other methods."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import protocol_notes
from paper_tables.analysis.fine_tuning_grid import SST2
from paper_tables.analysis.formats import quantity
from paper_tables.item import Table
from paper_tables.metrics import Column
from paper_tables.tables.bert_squad import COST, answering_notes, cells_of, map_table
from results import RunRecord

COLUMNS: tuple[Column, ...] = (("score", "Accuracy"), *COST)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per method, for EcoSpa at its own pace one per K and theta."""
    return map_table(records, SST2, COLUMNS)


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return what an answer that reads nothing gets, whether the dense model masters the task, and the protocol."""
    found = cells_of(records)
    if not found:
        return ()
    return (
        f"Always the commonest label: accuracy {quantity(found[0].interval(SST2.trivial))}.",
        *answering_notes(records, SST2),
        *protocol_notes([record for cell in found for record in cell.records]),
    )


ITEM = Table(
    name="bert_sst2",
    title="A pretrained BERT on SST-2: K and theta",
    caption="Accuracy in percent; mean over seeds ± half the width of the 95% interval (Student's t). Minus dense: "
    "points, paired by seed, with the 95% interval. K: share of the pairs that an event may cut; theta: share of a "
    "pair's scores that it keeps. At its own pace EcoSpa goes as fast as K and theta let it; rows without them share "
    "one size over steps. Blocks kept is the target.",
    experiments=("bert_sst2",),
    build=build,
    notes=notes,
    place=12,
)

"""One model cut to one size at regular and at irregular widths: FLOPs saved, time saved, and what was told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from paper_tables.analysis.cells import compare, protocol_notes, provenance
from paper_tables.analysis.failure_signatures import IRREGULAR, width_rows
from paper_tables.analysis.formats import quantity, share
from paper_tables.analysis.intervals import mean_interval
from paper_tables.item import Table
from results import RunRecord


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per precision and set of widths."""
    mine = [record for record in records if record.method == IRREGULAR]
    origin = [provenance(cell) for cell in compare(mine).cells]
    return pd.DataFrame([{**_row(*key, rows), **origin[0]} for key, rows in width_rows(mine).items()])


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the protocol."""
    return protocol_notes([record for record in records if record.method == IRREGULAR])


def _row(precision: str, name: str, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    def mean(field: str) -> str:
        return quantity(mean_interval([float(row[field]) for row in rows]))

    return {
        "Precision": precision,
        "Widths": name,
        "Blocks kept": share(round(mean_interval([row["block_share"] for row in rows]).mean, 3)),
        "Irregular pairs": f"{sum(row['irregular_pairs'] for row in rows)} of {sum(row['pairs'] for row in rows)}",
        "FLOPs / dense": mean("step_flops_ratio"),
        "Time / dense": mean("step_time_ratio"),
        "Layers / rounded up": mean("rounded_time_ratio"),
        "No speed-up told": f"{sum(row['no_speedup'] for row in rows)} of {len(rows)}",
    }


ITEM = Table(
    name="irregular_widths",
    title="Irregular widths: FLOPs that save no time",
    caption="A training step of one model of random weights, shrunk to about one size, vs. the dense one's, "
    "interleaved. Layers / rounded up: time of all coupled layers over that of the same layers with every irregular "
    "width rounded up to the next multiple of the device table, which do more work; from 1 on ecospa.check_widths "
    "tells that there is no speed-up. Mean over seeds ± half the width of the 95% interval.",
    experiments=("failure_signatures",),
    build=build,
    notes=notes,
    place=47,
)

"""What compressing ten million parameters once costs, method by method and model by model."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.cells import (
    Cell,
    by_model,
    compare,
    device_name,
    label,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.formats import NOTHING
from paper_tables.item import RECORDS, Table
from results import RunRecord

COLUMNS = (
    ("Time", "compression_time", "milliseconds"),
    ("Time / EcoSpa plan and apply", "time_to_plan_and_apply", "plain"),
    ("Memory on top of the model", "memory_on_top", "megabytes"),
    ("Peak memory", "peak_memory", "megabytes"),
    ("Stored in blocks", "block_parameters", "count"),
    ("Non-zero in blocks", "block_parameters_nonzero", "count"),
    ("Effective in blocks", "block_parameters_effective", "count"),
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model and method, the quickest first; then the methods that failed, with their own error."""
    rows = []
    for model, own in by_model(records).items():
        cells = sorted(compare(own).cells, key=_seconds)
        rows += [_row(model, cell) for cell in cells]
        rows += _failures(model, records, {cell.method for cell in cells})
    table = pd.DataFrame(rows)
    return without_empty_columns(table)


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the models and what they were given."""
    return tuple(line for own in by_model(records).values() for line in protocol_notes(own) if line.startswith("Model"))


def _seconds(cell: Cell) -> float:
    found = cell.interval("compression_time")
    return float("inf") if found is None else found.mean


def _row(model: str, cell: Cell) -> dict[str, str]:
    return {
        "Model": model,
        "Method": label(cell.method),
        **measured(cell, COLUMNS),
        "Error": NOTHING,
        **provenance(cell),
    }


def _failures(model: str, records: Sequence[RunRecord], finished: set[str]) -> list[dict[str, str]]:
    """One row for every method that never finished on a model, with the last line of its newest error."""
    newest: dict[str, RunRecord] = {}
    for record in records:
        named = str((record.config.get("model") or {}).get("name"))
        if record.status == "failed" and named == model and record.method not in finished:
            newest[record.method] = record
    return [
        {
            **{"Model": model, "Method": label(method)},
            **{header: NOTHING for header, _, _ in COLUMNS},
            "Error": (record.error or "").strip().splitlines()[-1],
            **{"Seeds": "0", "Device": device_name(record), RECORDS: record.id},
        }
        for method, record in newest.items()
    ]


ITEM = Table(
    name="pruning_cost",
    title="What one compression costs",
    caption="Mean over seeds ± half the width of the 95% interval (Student's t); the median of the turns of a seed, "
    "taken alternately with EcoSpa's own one-shot plan and apply (scores from the weights) on copies of one model. "
    "The time of methods that shrink while they train holds the gradients of all calibration data, if they read them. "
    "Memory on top is the peak of the process less what it held before: a rough number.",
    experiments=("pruning_cost",),
    build=build,
    notes=notes,
    failed=True,
    place=7,
)

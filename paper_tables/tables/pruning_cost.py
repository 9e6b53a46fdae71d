"""Cost of compressing ten million parameters once, method by method and model by model."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    by_model,
    compare,
    device_name,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.formats import NOTHING
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label
from paper_tables.metrics import Column, headers
from results import RunRecord

COLUMNS: tuple[Column, ...] = (
    ("compression_time", "Time"),
    "time_to_plan_and_apply",
    "memory_on_top",
    "peak_memory",
    "block_parameters",
    "block_parameters_nonzero",
    "block_parameters_effective",
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model and method, the quickest first; then the methods that failed, with their own error.

    A model on which everything failed has its rows, too.
    """
    finished = by_model(records)
    rows = []
    for model in dict.fromkeys(map(_model, records)):
        cells = sorted(compare(finished.get(model, [])).cells, key=_seconds)
        failed = _failed(model, records)
        rows += [_row(model, cell, failed.get(cell.method, [])) for cell in cells]
        rows += _failures(model, failed, {cell.method for cell in cells})
    table = pd.DataFrame(rows)
    return without_empty_columns(table)


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the models and what they were given."""
    return tuple(line for own in by_model(records).values() for line in protocol_notes(own) if line.startswith("Model"))


def _seconds(cell: Cell) -> float:
    found = cell.interval("compression_time")
    return float("inf") if found is None else found.mean


def _model(record: RunRecord) -> str:
    return str((record.config.get("model") or {}).get("name", "unnamed"))


def _failed(model: str, records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Return the failed runs on a model by method, the newest last."""
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.status == "failed" and _model(record) == model:
            found.setdefault(record.method, []).append(record)
    return found


def _row(model: str, cell: Cell, failed: Sequence[RunRecord]) -> dict[str, str]:
    # A seed that failed and was run again has its number.
    missing = {record.seed for record in failed} - {record.seed for record in cell.records}
    return {
        "Model": model,
        "Method": label(cell.method),
        **measured(cell, COLUMNS),
        "Error": f"{_seeds(missing)}: {_last_line(failed[-1])}" if missing else NOTHING,
        **provenance(cell),
    }


def _failures(model: str, failed: dict[str, list[RunRecord]], finished: set[str]) -> list[dict[str, str]]:
    """One row for every method that never finished on a model, with the last line of its newest error."""
    return [
        {
            **{"Model": model, "Method": label(method)},
            **dict.fromkeys(headers(COLUMNS).values(), NOTHING),
            "Error": f"{_seeds({record.seed for record in runs})}: {_last_line(runs[-1])}",
            **{"Seeds": "0", "Tier": runs[-1].tier, "Device": device_name(runs[-1]), RECORDS: runs[-1].id},
        }
        for method, runs in failed.items()
        if method not in finished
    ]


def _seeds(failed: set[int]) -> str:
    return f"{len(failed)} seed{'s' * (len(failed) != 1)} failed"


def _last_line(record: RunRecord) -> str:
    return ((record.error or "").strip().splitlines() or ["unknown"])[-1]


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

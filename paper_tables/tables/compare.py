"""One-shot compression of trained models: quality vs. stored and non-zero parameters, FLOPs and latency.

Stands where the paper puts its fine-tuning tables, without the fine-tuning. Three counts of parameters are apart: masks
store everything, and part of what they leave has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    by_model,
    compare,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.formats import missed, share
from paper_tables.item import Table
from paper_tables.methods import label
from paper_tables.metrics import Column
from results import RunRecord

COLUMNS: tuple[Column, ...] = (
    "perplexity",
    "bits_per_byte",
    "block_parameters",
    "block_parameters_nonzero",
    "block_parameters_effective",
    "forward_flops_ratio",
    "latency_ratio",
    "latency",
    "compression_time",
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, method and target share."""
    table = pd.DataFrame([_row(model, cell) for model, cell in _cells(records)])
    return without_empty_columns(table)


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return protocol and calibration of every model."""
    lines = []
    for model, own in by_model(records).items():
        given = compare(own).records[0].payload.get("calibration", {})
        length = given.get("sequence_length")
        text = f"{given.get('sequences')} sequences of {length} tokens, drawn by the seed from: {given.get('source')}"
        lines += [f"{model}. Calibration: {text}.", *protocol_notes(own)]
    return tuple(lines)


def _cells(records: Sequence[RunRecord]) -> list[tuple[str, Cell]]:
    return [(model, cell) for model, own in by_model(records).items() for cell in compare(own).cells]


def _row(model: str, cell: Cell) -> dict[str, str]:
    kept = cell.interval("block_share")
    return {
        "Model": model,
        "Method": label(cell.method),
        "Blocks kept": _kept(cell.target, 1.0 if kept is None else kept.mean),
        **measured(cell, COLUMNS),
        **provenance(cell),
    }


def _kept(target: float | None, measured: float) -> str:
    """Return the share that was asked for, with the one that is there where it was missed; that alone if none was."""
    if target is None:
        return share(round(measured, 4)) if measured < 1 else share(None)
    return f"{share(target)}, is {share(round(measured, 2))}" if missed(target, measured) else share(target)


ITEM = Table(
    name="compare",
    title="One-shot compression of trained models",
    caption="No training after the compression. Mean over calibration seeds ± half the width of the 95% interval "
    "(Student's t). Methods that belong to training had one event on calibration gradients, so this is the quality of "
    "their cut alone. Stored, non-zero and effective parameters are apart: masks save nothing on ordinary hardware.",
    experiments=("compare",),
    build=build,
    notes=notes,
    place=6,
)

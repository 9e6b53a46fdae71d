"""Tables and figures of image classifiers, shared by the experiments that train them; every model apart."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from paper_tables.analysis.cells import (
    Cell,
    by_model,
    compare,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.formats import share
from paper_tables.analysis.training_length import tokens_column
from paper_tables.drawing.pareto import at_each_size
from paper_tables.methods import label
from paper_tables.metrics import Column
from results import RunRecord

COLUMNS: tuple[Column, ...] = (
    "top1",
    "top5",
    "eval_loss",
    "parameters",
    "parameters_nonzero",
    "block_parameters",
    "block_parameters_nonzero",
    "step_flops",
    "run_flops",
    "step_time",
    "final_step_time_ratio",
    "training_bytes_peak",
    "training_bytes",
)


def accuracy_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, method and target share; columns that no record fills are left out."""
    comparisons = {model: compare(own) for model, own in by_model(records).items()}
    rows = [_row(model, cell, found.records) for model, found in comparisons.items() for cell in found.cells]
    return without_empty_columns(pd.DataFrame(rows))


def accuracy_against_size(records: Sequence[RunRecord]) -> Figure | None:
    """Return top-1 accuracy at each size, every model in panels of its own; None without an accuracy."""
    comparisons = {model: compare(own) for model, own in by_model(records).items()}
    return at_each_size(comparisons, "top1", "top-1 accuracy (%)", times=100.0, highest=True)


def model_notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return what stands under a table: the protocol of every model, its name first where there are several."""
    found = {model: protocol_notes(own) for model, own in by_model(records).items()}
    if len(found) == 1:
        return next(iter(found.values()))
    return tuple(f"{model}: {note}" for model, notes in found.items() for note in notes)


def _row(model: str, cell: Cell, together: Sequence[RunRecord]) -> dict[str, str]:
    return {
        "Model": model,
        "Method": label(cell.method),
        "Blocks kept": share(cell.target),
        **tokens_column(cell.records, together),
        **measured(cell, COLUMNS),
        **provenance(cell),
    }

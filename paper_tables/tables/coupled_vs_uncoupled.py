"""The main table: every method at every target share, quality vs. size, FLOPs, time and memory.

Stands where the paper puts its pre-training tables. Stored and non-zero parameters are apart, because a mask saves
nothing on ordinary hardware; step time and memory are measured, FLOPs are counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    compare,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.formats import share
from paper_tables.analysis.training_length import tokens_column
from paper_tables.item import Table
from paper_tables.methods import label
from paper_tables.metrics import Column
from results import RunRecord

COLUMNS: tuple[Column, ...] = (
    "perplexity",
    "word_perplexity",
    "eval_loss",
    "bits_per_byte",
    "parameters",
    "parameters_nonzero",
    "block_parameters",
    "block_parameters_nonzero",
    "average_block_parameters",
    "training_steps",
    "step_flops",
    "run_flops",
    "step_time",
    "final_step_time_ratio",
    "peak_memory",
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per method and target share; columns that no record fills are left out."""
    comparison = compare(records)
    table = pd.DataFrame([_row(cell, comparison.records) for cell in comparison.cells])
    return without_empty_columns(table)


def _row(cell: Cell, together: Sequence[RunRecord]) -> dict[str, str]:
    return {
        "Method": label(cell.method),
        "Blocks kept": share(cell.target),
        **tokens_column(cell.records, together),
        **measured(cell, COLUMNS),
        **provenance(cell),
    }


ITEM = Table(
    name="coupled_vs_uncoupled",
    title="Coupled against uncoupled sparsity, and the controls",
    caption="Mean over seeds ± half the width of the 95% interval (Student's t). Methods that shrink follow one "
    "size-over-steps curve; own pace means K and theta alone decide. Peak memory on a CPU contains the interpreter.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    notes=protocol_notes,
    place=2,
)

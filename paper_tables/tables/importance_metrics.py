"""Importance metrics that choose the pairs to cut: quality compared with what each of them removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    Comparison,
    compare,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.formats import NOTHING, share
from paper_tables.analysis.losses import against
from paper_tables.analysis.pair_widths import KINDS, whole_widths, widths_left
from paper_tables.analysis.training_length import tokens_column
from paper_tables.item import Table
from paper_tables.methods import label
from paper_tables.metrics import Column
from results import RunRecord

COLUMNS: tuple[Column, ...] = (
    "perplexity",
    "bits_per_byte",
    "block_parameters",
    "run_flops",
    "step_time",
)
AGAINST = (("ecospa", "Against Fisher"), ("importance_random", "Against random"))


def measure(method: str) -> str:
    """Return what a row is called: the measure, or the control."""
    return "Fisher (EcoSpa)" if method == "ecospa" else label(method)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per measure and control."""
    comparison = compare(records)
    whole = whole_widths(comparison.records)
    return without_empty_columns(pd.DataFrame([_row(cell, comparison, whole) for cell in comparison.cells]))


def _row(cell: Cell, comparison: Comparison, whole: Mapping[str, int]) -> dict[str, str]:
    left = widths_left(cell, whole)
    return {
        "Pairs chosen by": measure(cell.method),
        "Blocks kept": share(cell.target),
        **tokens_column(cell.records, comparison.records),
        **measured(cell, COLUMNS),
        **{title: against(cell, comparison.get(other, cell.target)) for other, title in AGAINST},
        **{f"Width left, {text}": share(round(left[kind].mean, 3)) if kind in left else NOTHING
           for kind, text in KINDS.items()},
        **provenance(cell),
    }  # fmt: skip


ITEM = Table(
    name="importance_metrics",
    title="Which pairs to cut: Fisher information and other measures",
    caption="Mean over seeds ± half the width of the 95% interval; against: difference in nats per token, paired by "
    "seed, below zero is better. Width left: mean over layers at the end.",
    experiments=("importance_metrics",),
    build=build,
    notes=protocol_notes,
    place=5,
)

"""Shapes that a probe finds, and shapes by rule, against EcoSpa and the dense controls, with the cost of the probe."""

from __future__ import annotations

from collections.abc import Sequence

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
from paper_tables.analysis.formats import share
from paper_tables.analysis.losses import against
from paper_tables.item import Table
from paper_tables.methods import label
from paper_tables.metrics import Column
from results import RunRecord

COLUMNS: tuple[Column, ...] = ("perplexity", "block_parameters", "run_flops", "probe_flops")
CONTROLS = (
    ("ecospa", "Against EcoSpa"),
    ("final_shape", "Against its final shape"),
    ("final_shape_equal_flops", "Against its final shape, equal FLOPs"),
    ("small_dense", "Against uniform"),
    ("small_dense_equal_flops", "Against uniform, equal FLOPs"),
    ("dense", "Against dense"),
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per shape and control."""
    comparison = compare(records)
    return without_empty_columns(pd.DataFrame([_row(cell, comparison) for cell in comparison.cells]))


def _row(cell: Cell, comparison: Comparison) -> dict[str, str]:
    return {
        "Shape": label(cell.method),
        "Blocks kept": share(cell.target),
        **measured(cell, COLUMNS),
        **{title: against(cell, comparison.get(name, cell.target)) for name, title in CONTROLS},
        **provenance(cell),
    }


ITEM = Table(
    name="shape_first",
    title="Shapes from a short probe, for a fresh model",
    caption="Probe: EcoSpa over that share of the steps; a fresh model of its widths is then trained for all steps, or "
    "until both have cost as much as EcoSpa (equal FLOPs). Run FLOPs hold those of the probe. Against: nats per token "
    "minus those of the control, paired by seed, with the 95% interval; below zero is better.",
    experiments=("shape_first",),
    build=build,
    notes=protocol_notes,
    place=5,
)

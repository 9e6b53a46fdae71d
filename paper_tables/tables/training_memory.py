"""Bytes of training while a model shrinks: peak, steady state and average, with and without a budget."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import measured, provenance, without_empty_columns
from paper_tables.analysis.formats import NOTHING, share
from paper_tables.analysis.speed import (
    Point,
    model_notes,
    named,
    points,
    without_equal_widths,
)
from paper_tables.item import Table
from paper_tables.metrics import Column
from results import RunRecord

COLUMNS: tuple[Column, ...] = (
    "dense_peak_memory",
    "peak_memory_ratio",
    "mean_memory_ratio",
    "steady_memory_ratio",
    "weights_bytes",
    "gradients_bytes",
    "optimizer_bytes",
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, size and budget."""
    table = pd.DataFrame([_row(point) for point in points(records) if _complete(point)])
    return without_equal_widths(without_empty_columns(table))


def _complete(point: Point) -> bool:
    return point.mean("dense_peak_memory") is not None


def _row(point: Point) -> dict[str, str]:
    budget = point.protocol.get("budget")
    return {
        **named(point),
        "Budget": NOTHING if budget is None else share(budget),
        **measured(point.cell, COLUMNS),
        **provenance(point.cell),
    }


ITEM = Table(
    name="training_memory",
    title="Bytes of training: peak, average and at the end",
    caption="Mean over seeds ± half the width of the 95% interval, by the account of the allocator: tensors, not the "
    "process. Training starts dense, so the peak is that of the dense model, unless a budget (a share of the dense "
    "model's peak) makes passes smaller at first; average is over all steps of the run, at the end means after the "
    "last cut. Weights, gradients and optimizer are those at the end; what is left of the peak are activations. "
    "An aligned dense model holds more bytes than the dense one, so it is no control here.",
    experiments=("training_memory",),
    build=build,
    notes=model_notes,
    place=32,
)

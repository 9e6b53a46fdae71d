"""Time of a training step against its floating-point operations, point by point, and what shrinking itself costs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import measured, without_empty_columns
from paper_tables.analysis.speed import (
    Point,
    against_aligned,
    aligned_control,
    beside,
    model_notes,
    named,
    points,
    remark,
    without_equal_widths,
)
from paper_tables.item import Table
from paper_tables.metrics import METRICS, Column
from results import RunRecord

OVER_ALIGNED = "Time / aligned dense"
COLUMNS: tuple[Column, ...] = (
    ("parameters", "Parameters"),
    "step_time_ratio",
    "step_flops_ratio",
    "step_time_over_flops",
    "dense_step_time",
    ("step_time", "Step"),
    "throughput",
    "swapped_step_time_ratio",
    "mode_step_time_ratio",
    "dense_mode_step_time_ratio",
    ("compile_seconds", "First step (s)"),
    "estimator_share",
    "event_steps",
    "energy_ratio",
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, size, batch and mode."""
    found = points(records)
    rows = [_row(point, found) for point in found if point.mean("step_time_ratio") is not None]
    return without_equal_widths(without_empty_columns(pd.DataFrame(rows)))


def _row(point: Point, found: Sequence[Point]) -> dict[str, str]:
    aligned = against_aligned(point.cell, aligned_control(point, found), "step_time_ratio")
    return {
        "Mode": point.mode,
        **named(point),
        **beside(measured(point.cell, COLUMNS), METRICS["step_time_ratio"].header, OVER_ALIGNED, aligned),
        **remark(point, point.mean("step_time_ratio")),
    }


ITEM = Table(
    name="training_speed",
    title="Time of a training step vs. its FLOPs",
    caption="Mean over seeds ± half the width of the 95% interval. Dense and shrunk model are measured "
    "interleaved in one process, and a ratio is the median over turns. Time / FLOPs tells how many of the saved FLOPs "
    "save no time: at 1 none, the aim is 1.05. Aligned dense: the same function with feed-forward widths padded by "
    "zeros to the multiple, interleaved with the dense model in runs of its own; what is left of a ratio against it is "
    "not alignment. Other classes alone: the dense model with the attention classes that shrinking brings, nothing "
    "cut; the aim is 1.02. Mode is that of both models: as they are (plain), a fused optimizer, products in bfloat16 "
    "(autocast), a compiled step; Mode / plain is what it does for each. Estimator and events are measured next to "
    "steps of the dense model; the aims are 1% and one step.",
    experiments=("training_speed",),
    build=build,
    notes=model_notes,
    place=30,
)

"""Time of prefill and decode by compressed models against their FLOPs, point by point."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import measured, without_empty_columns
from paper_tables.analysis.formats import NOTHING
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

OVER_ALIGNED = "Speed-up over aligned dense"
COLUMNS: tuple[Column, ...] = (
    ("parameters", "Parameters"),
    "throughput_ratio",
    ("forward_flops_ratio", "FLOPs / dense"),
    "latency_over_flops",
    "dense_latency",
    "latency",
    "throughput",
    "swapped_latency_ratio",
    "cache_bytes_ratio",
    "dense_plain_latency",
    "plain_latency",
    "mode_latency_ratio",
    "dense_mode_latency_ratio",
    "compile_seconds",
    "energy_ratio",
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, phase, method, size and batch."""
    found = points(records)
    rows = [_row(point, found) for point in found if point.mean("throughput_ratio") is not None]
    return without_equal_widths(without_empty_columns(pd.DataFrame(rows)))


def _row(point: Point, found: Sequence[Point]) -> dict[str, str]:
    faster = point.mean("throughput_ratio")
    aligned = against_aligned(point.cell, aligned_control(point, found), "throughput_ratio")
    time_ratio = None if faster is None else 1 / faster
    return {
        "Phase": point.phase,
        "Mode": point.mode,
        **named(point),
        "Tokens": str(point.length) if point.model != "vit" else NOTHING,
        **beside(measured(point.cell, COLUMNS), METRICS["throughput_ratio"].header, OVER_ALIGNED, aligned),
        **remark(point, time_ratio),
    }


ITEM = Table(
    name="inference_speed",
    title="Time of inference vs. its FLOPs",
    caption="Mean over seeds ± half the width of the 95% interval. Prefill: a batch at once; latency is that of the "
    "batch. Decode: token by token from a cache of keys and values; latency is that of one token of all sequences. "
    "Dense and compressed model are measured interleaved. Time / FLOPs: 1 is all that the saved FLOPs allow, "
    "the aim is 1.10; a mask saves none. Aligned dense: the same function with feed-forward widths padded by zeros to "
    "the multiple, interleaved with the dense model in runs of its own. Mode is that of both models: as they are "
    "(plain), merged projections, a cache of fixed size (static), a compiled step; Mode / plain is what it does for "
    "each. Other classes alone: the dense model with the attention classes that shrinking brings.",
    experiments=("inference_speed",),
    build=build,
    notes=model_notes,
    place=31,
)

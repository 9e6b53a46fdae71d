"""Every K and theta in both stages, and what going from the smallest to the largest of each does."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    by_model,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.formats import NOTHING, share
from paper_tables.analysis.k_theta_grid import (
    STAGES,
    Axis,
    Stage,
    effect,
    stages,
)
from paper_tables.analysis.losses import against, nats
from paper_tables.analysis.training_length import tokens_column
from paper_tables.item import Table
from paper_tables.methods import label
from paper_tables.metrics import Column
from results import RunRecord

AXES: dict[str, Axis] = {"K": "top_k", "theta": "theta"}
COLUMNS: tuple[Column, ...] = (
    "perplexity",
    "bits_per_byte",
    ("shrink_events", "Cuts"),
    "block_parameters",
    "run_flops",
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per stage, K and theta, the control of each stage and other methods first."""
    rows = []
    for name, stage in stages(records).items():
        rows += [_row(name, stage, cell, None, None) for cell in stage.others]
        rows += [_row(name, stage, point.cell, point.top_k, point.theta) for point in stage.points]
    return without_empty_columns(pd.DataFrame(rows))


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the effect of each axis in each stage, then the protocol of each stage."""
    lines = []
    for name, stage in stages(records).items():
        for text, axis in AXES.items():
            found = effect(stage.points, axis)
            if found is not None:
                lines.append(
                    f"{STAGES.get(name, name)}, {text}: nats per token at its largest value minus at its "
                    f"smallest, mean over the other, {nats(found)} (n={found.n})."
                )
    protocols = (note for own in by_model(records).values() for note in protocol_notes(own))
    return (*lines, *protocols)


def _row(name: str, stage: Stage, cell: Cell, top_k: float | None, theta: float | None) -> dict[str, str]:
    return {
        "Stage": STAGES.get(name, name),
        "K": label(cell.method) if top_k is None else share(top_k),
        "theta": NOTHING if theta is None else share(theta),
        "Blocks kept": share(cell.target),
        **tokens_column(cell.records, stage.comparison.records),
        **measured(cell, COLUMNS),
        "Against dense": against(cell, stage.comparison.get("dense", None)),
        **provenance(cell),
    }


ITEM = Table(
    name="k_theta_sweep",
    title="K and theta, in pre-training and in fine-tuning",
    caption="K: share of the pairs that an event cuts; theta: share of the score that a cut keeps. All end at one size "
    "at one step: cuts of K and theta, spaced evenly. Mean over seeds ± half the width of the 95% interval; against "
    "dense: nats per token, paired by seed, below zero is better.",
    experiments=("k_theta_sweep",),
    build=build,
    notes=notes,
    place=5,
)

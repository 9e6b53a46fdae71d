"""GPT-2 from scratch at the paper's sizes: smaller by how much, and better or worse than which dense model.

Published numbers stand in rows and columns of their own: another model and another text than those of the small tiers.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    Comparison,
    by_model,
    compare,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.formats import NOTHING, quantity, share
from paper_tables.analysis.intervals import Interval, paired_ratio
from paper_tables.analysis.losses import against
from paper_tables.analysis.training_length import tokens_column
from paper_tables.claims import published
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label
from paper_tables.metrics import Column, headers
from results import RunRecord

COLUMNS: tuple[Column, ...] = (
    "perplexity",
    "bits_per_byte",
    "parameters",
    "block_parameters",
    "run_flops",
    "step_time",
    "final_step_time_ratio",
    "training_bytes_peak",
    "training_bytes",
)
CONTROLS = (("dense", "Against dense"), ("dense_twice_steps", "Against dense, twice the steps"))


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, method and size, then the published rows; no rows without records."""
    rows = [_row(name, cell, compare(own)) for name, own in by_model(records).items() for cell in compare(own).cells]
    return without_empty_columns(pd.DataFrame([*rows, *_published()] if rows else []))


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the protocol of every model."""
    return tuple(note for own in by_model(records).values() for note in protocol_notes(own))


def _row(name: str, cell: Cell, comparison: Comparison) -> dict[str, str]:
    training = cell.records[0].config.get("training") or {}
    return {
        "Model": name,
        "Method": label(cell.method),
        "Parameters kept": _kept(cell, comparison),
        "Times smaller": quantity(_ratio(cell, comparison)),
        **tokens_column(cell.records, comparison.records),
        **measured(cell, COLUMNS),
        **{title: _against(cell, comparison, other) for other, title in CONTROLS},
        "Steps": str(training.get("steps", NOTHING)),
        "Published perplexity": NOTHING,
        "Published parameters": NOTHING,
        "Published in": NOTHING,
        **provenance(cell),
    }


def _kept(cell: Cell, comparison: Comparison) -> str:
    """Return the share of all parameters: the target, or what was measured where the target is one of the blocks."""
    left = _ratio(cell, comparison)
    if cell.target is None or cell.records[0].experiment == ITEM.name or left is None:
        return share(cell.target)
    return share(round(1 / left.mean, 4))


def _ratio(cell: Cell, comparison: Comparison) -> Interval | None:
    dense = comparison.get("dense", None)
    return None if dense is None else paired_ratio(dense.values("parameters"), cell.values("parameters"))


def _against(cell: Cell, comparison: Comparison, other: str) -> str:
    """Return the loss of a cell minus that of a dense one, paired by seed."""
    return NOTHING if cell.target is None else against(cell, comparison.get(other, None))


def _published() -> list[dict[str, str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for number in published.numbers():
        if number.setting == published.GPT2_WIKITEXT103:
            row = found.setdefault(
                (number.method, number.source),
                {"Model": number.method, "Method": "published", "Published in": number.reference, RECORDS: ""},
            )
            if number.metric in ("perplexity", "parameters"):
                unit = " M" if number.metric == "parameters" else ""
                row[f"Published {number.metric}"] = f"{number.value:g}{unit}"
    columns = ("Parameters kept", "Times smaller", "Steps", "Seeds", "Tier", "Device")
    blank = dict.fromkeys((*columns, *headers(COLUMNS).values(), *(title for _, title in CONTROLS)), NOTHING)
    return [{**blank, **row} for row in found.values()]


ITEM = Table(
    name="gpt2_pretraining",
    title="GPT-2 from scratch, 1.6 and 2.2 times smaller",
    caption="Mean over seeds ± half the width of the 95% interval (Student's t); against: nats per token minus those "
    "of the dense model, paired by seed, below zero is better. Sizes are shares of all parameters. Published: GPT-2 on "
    "WikiText-103, whose perplexities compare with tier paper alone.",
    experiments=("gpt2_pretraining",),
    build=build,
    notes=notes,
    place=2,
)

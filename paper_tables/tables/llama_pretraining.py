"""LLaMA from scratch in the setting of GaLore's comparison: perplexity vs. the bytes that training holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    compare,
    measured,
    protocol_notes,
    provenance,
    shape,
    without_empty_columns,
)
from paper_tables.analysis.formats import NOTHING, share
from paper_tables.analysis.training_length import tokens_column
from paper_tables.item import Table
from paper_tables.methods import label
from paper_tables.metrics import Column
from results import RunRecord

COLUMNS: tuple[Column, ...] = (
    "perplexity",
    "bits_per_byte",
    "parameters",
    "block_parameters",
    "training_bytes_peak",
    "training_bytes",
    "run_flops",
    "step_time",
    "final_step_time_ratio",
    "peak_memory",
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, method and target; the learning rate is a column because one method has its own."""
    comparisons = [compare(own) for own in by_shape(records)]
    table = pd.DataFrame([_row(cell, own.records) for own in comparisons for cell in own.cells])
    return without_empty_columns(table)


def by_shape(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return the records of every model, the smallest first: a tier may have several sizes of one architecture."""
    groups: defaultdict[tuple[int, int], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[shape(record)].append(record)
    return [groups[key] for key in sorted(groups)]


def _row(cell: Cell, together: Sequence[RunRecord]) -> dict[str, str]:
    training = cell.records[0].config.get("training") or {}
    width, layers = shape(cell.records[0])
    return {
        "Model": f"{layers} layers, {width} wide",
        "Method": "full rank" if cell.method == "dense" else label(cell.method),
        "Blocks kept": NOTHING if cell.target is None else share(cell.target),
        **tokens_column(cell.records, together),
        **measured(cell, COLUMNS),
        "Learning rate": f"{training.get('learning_rate', 0.0):g}",
        **provenance(cell),
    }


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return protocol, data and training of every model."""
    return tuple(dict.fromkeys(note for own in by_shape(records) for note in protocol_notes(own)))


ITEM = Table(
    name="llama_pretraining",
    title="LLaMA from scratch: full rank, low rank, and shrinking on the way",
    caption="Mean over seeds ± half the width of the 95% interval (Student's t). What training holds is counted from "
    "its tensors: weights, gradients of what trains, optimizer state; no activations. Peak memory is the process's.",
    experiments=("llama_pretraining",),
    build=build,
    notes=notes,
    place=3,
)

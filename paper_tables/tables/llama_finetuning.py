"""A trained LLaMA made smaller, cut at once or with as much fine-tuning for every method: one column per protocol.

Numbers of two models or two procedures never stand in one column: they have different text, tokens or steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import protocol_notes
from paper_tables.analysis.fine_tuning import Protocol, kept_share, protocols
from paper_tables.analysis.formats import NOTHING, missed, quantity, share
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label, rank, removes
from results import RunRecord


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per method and size, the dense model first; per model and procedure one column."""
    found = protocols(records)
    keys = {(cell.method, cell.target) for own in found for cell in own.comparison.cells}
    ordered = sorted(keys, key=lambda key: (key[1] is not None, -(key[1] or 0.0), rank(key[0])))
    return pd.DataFrame([_row(method, target, found) for method, target in ordered])


def _row(method: str, target: float | None, found: Sequence[Protocol]) -> dict[str, str]:
    row = {"Method": label(method), "Removes": removes(method), "Blocks kept": share(target)}
    seeds: set[int] = set()
    ids: list[str] = []
    for own in found:
        cell = next((c for c in own.comparison.cells if (c.method, c.target) == (method, target)), None)
        row[f"{own.model}, {own.procedure}"] = NOTHING
        if cell is None:
            continue
        text, left = quantity(cell.interval("perplexity")), kept_share(cell, own.comparison)
        real = f"{text} at {share(round(left or 0, 2))}"
        row[f"{own.model}, {own.procedure}"] = real if missed(target, left) else text
        seeds.add(len(cell.records))
        ids += cell.ids
    return {**row, "Seeds": " to ".join(str(n) for n in sorted({min(seeds), max(seeds)})), RECORDS: " ".join(ids)}


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return protocol, data and training of every column."""
    return tuple(
        f"{own.model}, {own.procedure}. {note}" for own in protocols(records) for note in protocol_notes(own.records)
    )


ITEM = Table(
    name="llama_finetuning",
    title="A trained LLaMA at 80, 70, 60 and 50 %: one-shot, or with fine-tuning",
    caption="Perplexity, mean over seeds ± half the width of the 95% interval. One-shot: cut once, no step. "
    "Fine-tuned: the same number of steps for every method, dense too; methods that belong to training shrink on the "
    "way, one-shot ones cut first and train what is left, LLM-Pruner cuts first and trains adapters. A method that "
    "ended at another size has its own share beside the number. What is published of Llama-2-7B stands in the "
    "table of published numbers: no column here is comparable with it.",
    experiments=("llama_finetuning",),
    build=build,
    notes=notes,
    place=7,
)

"""A pre-trained model cut step by step with short training after each cut (the shape of the paper's Table 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from paper_tables.analysis.cells import by_model, compare, protocol_notes
from paper_tables.analysis.formats import NOTHING, quantity, share
from paper_tables.analysis.intervals import Interval, mean_interval
from paper_tables.item import RECORDS, Table
from results import RunRecord

FIELDS = ("size", "perplexity_cut", "perplexity_recovered", "parameters")


@dataclass(frozen=True)
class Stage:
    """One stage over seeds: mean and interval of each of FIELDS that was measured, and the ids of the records."""

    values: dict[str, Interval]
    ids: tuple[str, ...]


def stages(records: Sequence[RunRecord]) -> list[Stage]:
    """Return the stages in their order; seeds may land on slightly different sizes, so their number joins them."""
    count = max((len(record.payload.get("stages", [])) for record in records), default=0)
    return [_stage(records, number) for number in range(count)]


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model and stage."""
    return pd.DataFrame(
        [
            {"Model": model, **_row(stage)}
            for model, own in by_model(records).items()
            for stage in stages(compare(own).records)
        ]
    )


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the dense model's perplexities, the texts that the model wrote before and after, then the protocol."""
    return tuple(f"{model}. {note}" for model, own in by_model(records).items() for note in _notes(own))


def _notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    chosen = compare(records).records
    lines = [f"{text}: perplexity {quantity(mean_interval(found))}." for text, found in whole_model(chosen)]
    payload = chosen[0].payload if chosen else {}
    texts = (("Prompt", "prompt"), ("Continuation before", "text_before"), ("Continuation after", "text_after"))
    lines += [f"{name}: {' '.join(str(payload[key]).split())}" for name, key in texts if payload.get(key)]
    return (*lines, *protocol_notes(records))


def whole_model(records: Sequence[RunRecord]) -> list[tuple[str, list[float]]]:
    """Return (label, perplexities) of the uncut model: as it came, and trained on as many steps of the same text."""
    names = (("before any cut", "perplexity_before"), ("dense, equal steps", "perplexity_dense_same_steps"))
    found = [
        (text, [record.metrics[name].value for record in records if name in record.metrics]) for text, name in names
    ]
    return [(text, values) for text, values in found if values]


def _stage(records: Sequence[RunRecord], number: int) -> Stage:
    reached = [record for record in records if number < len(record.payload.get("stages", []))]
    rows = [record.payload["stages"][number] for record in reached]
    values = {field: [row[field] for row in rows if row.get(field) is not None] for field in FIELDS}
    intervals = {field: mean_interval(sample) for field, sample in values.items() if sample}
    return Stage(intervals, tuple(record.id for record in reached))


def _row(stage: Stage) -> dict[str, str]:
    cut, recovered = stage.values.get("perplexity_cut"), stage.values.get("perplexity_recovered")
    return {
        "Blocks kept": share(round(stage.values["size"].mean, 3)),
        "Parameters": quantity(stage.values.get("parameters"), "count"),
        "Perplexity after the cut": quantity(cut),
        "Perplexity after recovery": quantity(recovered),
        "Won back": f"{1 - recovered.mean / cut.mean:.1%}" if cut and recovered else NOTHING,
        "Seeds": str(len(stage.ids)),
        RECORDS: " ".join(stage.ids),
    }


ITEM = Table(
    name="pretrained_shrink",
    title="A pre-trained model, cut step by step",
    caption="Perplexity right after each cut and after the short training that follows it; mean over seeds ± half the "
    "width of the 95% interval.",
    experiments=("pretrained_shrink",),
    build=build,
    notes=notes,
    place=4,
)

"""Capabilities of EcoSpa and Torch-Pruning, as tried and checked on small models, and the time of a cut by both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from paper_tables.analysis.cells import by_model, compare, device_name
from paper_tables.analysis.formats import NOTHING, quantity
from paper_tables.analysis.intervals import Interval
from paper_tables.analysis.speed import model_place, shown
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label
from results import RunRecord

SIDES = ("ecospa", "torch_pruning")
WORDS = {
    "works": "works",
    "wrong": "wrong",
    "fails": "fails",
    "nothing": "silently does nothing",
    "untested": "untested",
}
TIME = "time to halve the heads"


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model and capability, a column for each side; then the time of a cut, where it was taken."""
    rows = []
    for model, own in sorted(by_model(records).items(), key=lambda item: model_place(item[0])):
        cells = compare(own).cells
        newest = {cell.method: cell.records[-1] for cell in cells}
        found = {side: _findings(newest.get(side)) for side in SIDES}
        common = {
            "Tier": own[0].tier,
            "Device": ", ".join(sorted({device_name(record) for record in newest.values()})),
            RECORDS: " ".join(record.id for record in newest.values()),
        }
        for name in dict.fromkeys(name for side in SIDES for name in found[side]):
            told = {label(side): _told(found[side].get(name)) for side in SIDES}
            rows.append({"Model": shown(model), "Capability": name, **told, **common})
        if timed := _times(cells):
            rows.append({"Model": shown(model), "Capability": TIME, **timed, **common})
    return pd.DataFrame(rows)


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return which releases of the library the records are about."""
    releases = sorted({str(record.payload["torch_pruning"]) for record in records if "torch_pruning" in record.payload})
    return (f"Torch-Pruning {', '.join(releases)}.",) if releases else ()


def _findings(record: RunRecord | None) -> dict[str, dict[str, Any]]:
    """Return the findings of a record by capability."""
    return {} if record is None else {found["capability"]: found for found in record.payload.get("findings", [])}


def _told(finding: dict[str, Any] | None) -> str:
    if finding is None:
        return NOTHING
    word, detail = WORDS.get(finding["outcome"], finding["outcome"]), finding["detail"]
    return word if finding["outcome"] in ("works", "nothing") or not detail else f"{word}: {detail}"


def _times(cells: Iterable[Any]) -> dict[str, str]:
    """Return the seconds of both sides, which stand in EcoSpa's record because they took turns in its run."""
    for cell in cells:
        own, peer, ratio = map(cell.interval, ("heads_time", "peer_heads_time", "heads_time_ratio"))
        if own is not None and peer is not None and ratio is not None:
            times = f"{_seconds(own)}, {quantity(ratio, 'plain')} of the other's"
            return {label(SIDES[0]): times, label(SIDES[1]): _seconds(peer)}
    return {}


def _seconds(value: Interval) -> str:
    return quantity(value, "milliseconds")


ITEM = Table(
    name="peers",
    title="What works in EcoSpa and in Torch-Pruning",
    caption="Each capability was tried and checked on a small model: a cut model must give what the dense one gives "
    "with those entries at zero, a loaded one what it gave before it was saved, one that trains on what masked "
    "training gives. What failed stands with its own error. The time is the median of turns on copies of one larger "
    "model, heads chosen by the size of the weights.",
    experiments=("peers",),
    build=build,
    notes=notes,
    place=8,
)

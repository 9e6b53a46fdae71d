"""Predictions of `ecospa plan` vs. measurements: every point, and whether it is as near as promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from paper_tables.analysis.cells import provenance
from paper_tables.analysis.formats import quantity, share
from paper_tables.analysis.intervals import mean_interval, paired_ratio
from paper_tables.analysis.speed import (
    Point,
    model_notes,
    named,
    points,
    without_equal_widths,
)
from paper_tables.item import Table
from results import RunRecord


@dataclass(frozen=True)
class Promise:
    """A predicted number, its measured counterpart, and how far they may be apart; None: no promise here."""

    text: str
    foretold: str
    measured: str
    kind: str
    limit: float | None


PROMISES = (
    Promise("step time / dense", "foretold_step_time_ratio", "step_time_ratio", "plain", 0.10),
    Promise("weights, gradients, optimizer", "foretold_training_bytes", "training_bytes", "megabytes", 0.01),
    Promise("peak of a step at the end", "foretold_steady_memory", "steady_memory", "megabytes", None),
)
_PEAK_ON_GPU = 0.10


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per promise and point, in the order of the promises."""
    found = [(point, promise) for promise in PROMISES for point in points(records)]
    table = pd.DataFrame([_row(point, promise) for point, promise in found if _complete(point, promise)])
    return without_equal_widths(table)


def _complete(point: Point, promise: Promise) -> bool:
    return paired_ratio(point.cell.values(promise.foretold), point.cell.values(promise.measured)) is not None


def _row(point: Point, promise: Promise) -> dict[str, str]:
    foretold, found = (point.cell.values(name) for name in (promise.foretold, promise.measured))
    ratio = paired_ratio(foretold, found)
    assert ratio is not None  # chosen by _complete
    limit = _PEAK_ON_GPU if promise.limit is None and point.protocol.get("device") == "cuda" else promise.limit
    budget = point.protocol.get("budget")
    return {
        "What": promise.text,
        **{name: text for name, text in named(point).items() if name != "Method"},
        "Budget": "" if budget is None else share(budget),
        "Predicted": quantity(mean_interval(foretold.values()), promise.kind),
        "Measured": quantity(mean_interval(found.values()), promise.kind),
        "Predicted / measured": quantity(ratio),
        "Promise": "none here" if limit is None else f"within {share(limit)}: {_kept(ratio.mean, limit)}",
        **provenance(point.cell),
    }


def _kept(ratio: float, limit: float) -> str:
    return "kept" if abs(ratio - 1.0) <= limit else "MISSED"


ITEM = Table(
    name="predictions",
    title="Predicted and measured",
    caption="Mean over seeds ± half the width of the 95% interval. Step times: from rates of matrix products and "
    "copies that are measured in the same process, and a trace of both models, by the release that made the record: "
    "early ones on a GPU know nothing of alignment. Bytes: from the configuration alone, to the end of the schedule. "
    "Peaks: from a trace of one step, without the safety margin that a budget adds; promised for the GPU only.",
    experiments=("training_speed", "training_memory"),
    build=build,
    notes=model_notes,
    place=34,
)

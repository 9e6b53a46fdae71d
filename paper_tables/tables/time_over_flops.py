"""Saved FLOPs that are not saved time, in every phase, compared with the aim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from paper_tables.analysis.cells import Cell, device_name, without_empty_columns
from paper_tables.analysis.formats import NOTHING, quantity, share
from paper_tables.analysis.speed import (
    PHASES,
    Point,
    batch_of_most_sizes,
    model_notes,
    points,
    shown,
    usual,
)
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label
from results import RunRecord

METRICS = {"training": "step_time_over_flops", "prefill": "latency_over_flops", "decode": "latency_over_flops"}
AIMS = {"training": 1.05, "prefill": 1.10, "decode": 1.10}
OURS = ("ecospa", "ecospa_tied")


@dataclass(frozen=True)
class Mode:
    """A mode as the table calls it, the mode of the runs, and what the metric's name begins with."""

    text: str
    of_runs: str
    prefix: str = ""


MODES = (Mode("plain", "plain"), Mode("compiled", "compiled"), Mode("plain next to compiled", "compiled", "plain_"))
"""Machines differ more than modes do, so a compiled model is compared with itself as it is, in the same runs."""


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per phase, mode, model and method, a column per size, at the batch with most sizes."""
    found = [point for point in points(records) if point.cell.method in OURS and point.cell.target is not None]
    targets = sorted({point.cell.target for point in found if point.cell.target is not None}, reverse=True)
    rows = [
        row
        for phase in PHASES
        for mode in MODES
        for row in _rows(_at_one_batch([point for point in found if point.phase == phase]), mode, targets)
    ]
    return without_empty_columns(pd.DataFrame(rows)) if rows else pd.DataFrame()


def _at_one_batch(found: Sequence[Point]) -> list[Point]:
    own = usual(found)
    batch = batch_of_most_sizes(own)
    return [point for point in own if point.batch == batch]


def _rows(found: Sequence[Point], mode: Mode, targets: Sequence[float]) -> list[dict[str, str]]:
    cells: dict[tuple[str, str], dict[float, Cell]] = {}
    for point in found:
        metric, target = mode.prefix + METRICS[point.phase], point.cell.target
        if point.mode == mode.of_runs and target is not None and point.cell.values(metric):
            cells.setdefault((point.model, point.cell.method), {})[target] = point.cell
    return [_row(found[0], mode, *key, own, targets) for key, own in cells.items()]


def _row(
    like: Point, mode: Mode, model: str, method: str, cells: Mapping[float, Cell], targets: Sequence[float]
) -> dict[str, str]:
    metric, aim = mode.prefix + METRICS[like.phase], AIMS[like.phase]
    found = {target: cell.interval(metric) for target, cell in cells.items()}
    missed = [share(target) for target in targets if (interval := found.get(target)) and interval.mean > aim]
    records = [record for cell in cells.values() for record in cell.records]
    return {
        **{"Phase": like.phase, "Mode": mode.text, "Model": shown(model), "Method": label(method)},
        "Batch": str(like.batch),
        **{share(target): quantity(found.get(target)) for target in targets},
        **{"Aim": f"{aim:.2f}", "Missed at": ", ".join(missed) or NOTHING},
        "Seeds": str(min(len(cell.records) for cell in cells.values())),
        "Device": ", ".join(sorted({device_name(record) for record in records})),
        RECORDS: " ".join(record.id for record in records),
    }


ITEM = Table(
    name="time_over_flops",
    title="Time vs. FLOPs",
    caption="Time of the shrunk model over that of the dense one, divided by the same ratio of FLOPs "
    "(embedding and head counted), by share of the block parameters that is kept: 1 is all that the saved "
    "FLOPs allow. Mean over seeds ± half the width of the 95% interval; dense and shrunk model are measured "
    "interleaved in one process. Training: a step with AdamW. Prefill: a batch at once. Decode: token by token from a "
    "cache of keys and values, of fixed size if compiled. Compiled: both models by torch.compile; the same two as they "
    "are were interleaved with them (plain next to compiled). Missed at: the sizes at which the mean is above the aim.",
    experiments=("training_speed", "inference_speed"),
    build=build,
    notes=model_notes,
    place=29,
)

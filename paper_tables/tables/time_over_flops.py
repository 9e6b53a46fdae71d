"""How much of the arithmetic that shrinking saves is not saved time, in every phase, beside what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from paper_tables.cells import Cell, label, measured, without_empty_columns
from paper_tables.formats import NOTHING, share
from paper_tables.item import RECORDS, Table
from paper_tables.speed import PHASES, Point, batch_of_most_sizes, model_notes, points, shown, usual
from results import RunRecord

METRICS = {"training": "step_time_over_flops", "prefill": "latency_over_flops", "decode": "latency_over_flops"}
AIMS = {"training": 1.05, "prefill": 1.10, "decode": 1.10}
OURS = ("ecospa", "ecospa_tied")
MODES = ("plain", "compiled")


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per phase, mode, model and method, a column per size, at the batch with most sizes."""
    found = [point for point in points(records) if point.cell.method in OURS]
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


def _rows(found: Sequence[Point], mode: str, targets: Sequence[float]) -> list[dict[str, str]]:
    cells: dict[tuple[str, str], dict[float, Cell]] = {}
    for point in found:
        if point.mode == mode and point.cell.target is not None:
            cells.setdefault((point.model, point.cell.method), {})[point.cell.target] = point.cell
    return [_row(found[0], mode, *key, own, targets) for key, own in cells.items()]


def _row(
    like: Point, mode: str, model: str, method: str, cells: Mapping[float, Cell], targets: Sequence[float]
) -> dict[str, str]:
    metric, aim = METRICS[like.phase], AIMS[like.phase]
    means = {target: cell.interval(metric) for target, cell in cells.items()}
    missed = [share(target) for target in targets if (mean := means.get(target)) is not None and mean.mean > aim]
    sizes = {
        share(target): measured(cells[target], [("", metric, "plain")])[""] if target in cells else NOTHING
        for target in targets
    }
    return {
        **{"Phase": like.phase, "Mode": mode, "Model": shown(model), "Method": label(method)},
        "Batch": str(like.batch),
        **sizes,
        "Aim": f"{aim:.2f}",
        "Missed at": ", ".join(missed) or NOTHING,
        "Seeds": str(min(len(cell.records) for cell in cells.values())),
        RECORDS: " ".join(record for cell in cells.values() for record in cell.ids),
    }


ITEM = Table(
    name="time_over_flops",
    title="Does time follow the arithmetic?",
    caption="Time of the shrunk model over that of the whole one, divided by the same ratio of floating-point "
    "operations (embedding and head counted), by share of the block parameters that is kept: 1 is all that the saved "
    "arithmetic allows. Mean over seeds ± half the width of the 95% interval; whole and shrunk model take turns in one "
    "process. Training: a step with AdamW. Prefill: a batch at once. Decode: token by token from a cache of keys and "
    "values. Compiled: both models by torch.compile. Missed at: the sizes at which the mean is above the aim.",
    experiments=("training_speed", "inference_speed"),
    build=build,
    notes=model_notes,
    place=29,
)

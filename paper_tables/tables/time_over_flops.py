"""Saved FLOPs that are not saved time, in every phase, compared with the aim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from paper_tables.analysis.cells import Cell, device_name, without_empty_columns
from paper_tables.analysis.comparability import same_device
from paper_tables.analysis.formats import NOTHING, quantity, share
from paper_tables.analysis.intervals import Interval, paired_ratio
from paper_tables.analysis.speed import (
    PHASES,
    Point,
    aligned_control,
    batch_of_most_sizes,
    model_notes,
    of_one_rule,
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
CONTROL = "Time over that of"
Shown = dict[tuple[str, str], dict[float, tuple[Cell, Interval]]]
"""Cells and what is shown of them, by model and method, then by size."""


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
    every = points(records)
    found = of_one_rule([p for p in every if p.cell.method in OURS and p.cell.target is not None])
    targets = sorted({point.cell.target for point in found if point.cell.target is not None}, reverse=True)
    rows = [
        row
        for phase in PHASES
        for mode in MODES
        for row in _rows(_at_one_batch([point for point in found if point.phase == phase]), mode, targets, every)
    ]
    return _without_one_control(without_empty_columns(pd.DataFrame(rows))) if rows else pd.DataFrame()


def _without_one_control(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the column of controls where all rows have the same."""
    return table.drop(columns=CONTROL) if table[CONTROL].nunique() < 2 else table


def _at_one_batch(found: Sequence[Point]) -> list[Point]:
    own = usual(found)
    batch = batch_of_most_sizes(own)
    return [point for point in own if point.batch == batch]


def _rows(found: Sequence[Point], mode: Mode, targets: Sequence[float], every: Sequence[Point]) -> list[dict[str, str]]:
    """Return a row per model and method against the dense model, and one against the aligned dense one where it ran."""
    dense: Shown = {}
    aligned: Shown = {}
    for point in found:
        metric, target = mode.prefix + METRICS[point.phase], point.cell.target
        if point.mode != mode.of_runs or target is None or (interval := point.cell.interval(metric)) is None:
            continue
        key = point.model, point.cell.method
        dense.setdefault(key, {})[target] = point.cell, interval
        if not mode.prefix and (over := _over_aligned(point, aligned_control(point, every))) is not None:
            aligned.setdefault(key, {})[target] = point.cell, over
    return [
        row
        for key, own in dense.items()
        for row in (
            _row(found[0], mode, *key, "dense", own, targets),
            *([_row(found[0], mode, *key, "aligned dense", aligned[key], targets)] if key in aligned else []),
        )
    ]


def _over_aligned(point: Point, control: Cell | None) -> Interval | None:
    """Return time / FLOPs with the time of the aligned dense model: by how much it falls, time / FLOPs rises."""
    if control is None:
        return None
    metric = "step_time_ratio" if point.phase == "training" else "throughput_ratio"
    over, times = same_device(point.cell, control, METRICS[point.phase])[0], same_device(control, point.cell, metric)[0]
    if point.phase != "training":
        times = {seed: 1 / faster for seed, faster in times.items()}
    return paired_ratio(over, times)


def _row(
    like: Point,
    mode: Mode,
    model: str,
    method: str,
    control: str,
    shown_cells: Mapping[float, tuple[Cell, Interval]],
    targets: Sequence[float],
) -> dict[str, str]:
    aim, cells = AIMS[like.phase], {target: cell for target, (cell, _) in shown_cells.items()}
    found = {target: interval for target, (_, interval) in shown_cells.items()}
    missed = [share(target) for target in targets if (interval := found.get(target)) and interval.mean > aim]
    records = [record for cell in cells.values() for record in cell.records]
    return {
        **{"Phase": like.phase, "Mode": mode.text, "Model": shown(model), "Method": label(method)},
        CONTROL: control,
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
    "are were interleaved with them (plain next to compiled). Missed at: the sizes at which the mean is above the aim. "
    "Aligned dense: the same function at widths that are multiples; FLOPs are those of the dense model in either case.",
    experiments=("training_speed", "inference_speed"),
    build=build,
    notes=model_notes,
    place=29,
)

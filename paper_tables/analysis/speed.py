"""Points at which a speed or bytes were measured: which records may stand in one row, and which are slower than whole.

Every record of these experiments holds the dense model, too, interleaved with the shrunk one, so that rows of
different batches and models stand next to one another without being compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from paper_tables.analysis.cells import Cell, compare, provenance
from paper_tables.analysis.comparability import same_device
from paper_tables.analysis.formats import NOTHING, flat, quantity, share
from paper_tables.analysis.intervals import Interval, paired_ratio
from paper_tables.methods import label
from results import RunRecord

SLOWER = "compressed but slower"
ALIGNED = "dense_aligned"
"""The dense model at widths that are multiples, measured interleaved with the dense one as shrunk models are."""
WIDTHS = "Widths"
PHASES = {
    "training": "a training step",
    "prefill": "prefill",
    "decode": "decode",
}
"""Phases that are measured, and the titles of their panels."""
_NAMES = {"gpt2": "GPT-2", "llama": "LLaMA", "llama_grouped": "LLaMA, grouped queries", "bert": "BERT", "vit": "ViT"}


@dataclass(frozen=True)
class Point:
    """One method at one size, of one model under one protocol: one record per seed."""

    model: str
    protocol: dict[str, Any]
    cell: Cell

    @property
    def batch(self) -> int:
        """Sequences or images at a time."""
        return int(self.protocol.get("batch", 0))

    @property
    def length(self) -> int:
        """Tokens of a sequence, those that are read."""
        return int(self.protocol.get("sequence", 0))

    @property
    def phase(self) -> str:
        """Phase that was measured: training, prefill or decode."""
        return str(self.protocol.get("phase", ""))

    @property
    def mode(self) -> str:
        """Mode of inference or training: plain, merged, static, compiled, fused or autocast."""
        return str(self.protocol.get("mode", "plain"))

    def mean(self, metric: str) -> float | None:
        """The mean of a metric over seeds; None if no record has it."""
        found: Interval | None = self.cell.interval(metric)
        return None if found is None else found.mean


def points(records: Sequence[RunRecord]) -> list[Point]:
    """Return the points of one experiment: by model, then by protocol, then by size and method."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        if record.status == "finished" and record.config.get("model"):
            protocol = {**record.config["protocol"], "turns": 0}  # more turns make a better number, not another one
            groups.setdefault((model_name(record), str(sorted(protocol.items()))), []).append(record)
    return [
        Point(name, own[0].config["protocol"], cell)
        for (name, _), own in sorted(groups.items(), key=lambda item: model_place(item[0][0]))
        for cell in compare(own).cells
    ]


def against_aligned(cell: Cell, control: Cell | None, metric: str) -> Interval | None:
    """Return a ratio to the dense model as one to the aligned dense model, paired by seed; None without the control.

    Both were measured interleaved with the same dense model, in runs of their own.

    Args:
        cell: of a shrunk model.
        control: of the aligned dense one, in the same setting.
        metric: its ratio to the dense model, of times or of throughputs.
    """
    if control is None or cell.method == ALIGNED:
        return None
    return paired_ratio(*same_device(cell, control, metric))


def aligned_control(point: Point, found: Sequence[Point]) -> Cell | None:
    """Return the cell of the aligned dense model in the setting of a point; it has no heads of its own."""
    return next((p.cell for p in found if p.cell.method == ALIGNED and _setting(p) == _setting(point)), None)


def _setting(point: Point) -> tuple[str, str]:
    inner = _by_kind(point).get("ffn")
    return flat(point.cell.records[0].config["model"]), flat({**point.protocol, "turns": 0, "width_multiple": inner})


def _by_kind(point: Point) -> Mapping[str, Any]:
    multiple = point.protocol.get("width_multiple")
    return multiple if isinstance(multiple, Mapping) else dict.fromkeys(("qk", "vo", "ffn"), multiple)


def beside(row: Mapping[str, str], header: str, new: str, interval: Interval | None) -> dict[str, str]:
    """Return a row with one more column right behind another.

    Args:
        row: header -> text.
        header: of the column that is there.
        new: header of the new one.
        interval: its content.
    """
    added: dict[str, str] = {}
    for name, text in row.items():
        added[name] = text
        if name == header:
            added[new] = quantity(interval)
    return added


def of_one_rule(found: Sequence[Point]) -> list[Point]:
    """Return the points of the finest multiples of heads that a model was measured at: a figure mixes no two rules."""
    finest: dict[str, Any] = {}
    for point in found:
        own = _by_kind(point).get("qk") or 0
        finest[point.model] = min(finest.get(point.model, own), own)
    return [point for point in found if (_by_kind(point).get("qk") or 0) == finest[point.model]]


def plain_points(records: Sequence[RunRecord]) -> list[Point]:
    """Return the points of EcoSpa as it is, at one rule of widths: what figures show."""
    found = [point for point in points(records) if point.cell.method == "ecospa" and point.mode == "plain"]
    return of_one_rule(found)


def without_equal_widths(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without its column of widths where all rows have the same."""
    return table.drop(columns=WIDTHS) if WIDTHS in table and table[WIDTHS].nunique() < 2 else table


def model_name(record: RunRecord) -> str:
    """Return the short name of the model of a run."""
    return str(record.config["model"].get("name", "unnamed"))


def model_place(model: str) -> int:
    """Return the place of a model in tables and figures; those that are not known come last."""
    return list(_NAMES).index(model) if model in _NAMES else len(_NAMES)


def shown(model: str) -> str:
    """Return the name of a model for people."""
    return _NAMES.get(model, model)


def named(point: Point) -> dict[str, str]:
    """Return the first columns of a row: model, method, size and batch."""
    return {
        "Model": shown(point.model),
        "Method": label(point.cell.method),
        "Blocks kept": share(point.cell.target),
        "Batch": str(point.batch),
        WIDTHS: _widths(point),
    }


def _widths(point: Point) -> str:
    """Return the multiples that widths stay, "64" or "16 heads, 64 FFN"."""
    kinds = _by_kind(point)
    same = len({*kinds.values()}) < 2
    return str(kinds.get("ffn") or NOTHING) if same else f"{kinds['qk']} heads, {kinds['ffn']} FFN"


def remark(point: Point, time_ratio: float | None) -> dict[str, str]:
    """Return the last columns of a row: whether a smaller model takes longer, and where the numbers come from."""
    smaller = point.cell.target is not None
    return {"Remark": SLOWER if smaller and (time_ratio or 0.0) > 1.0 else NOTHING, **provenance(point.cell)}


def model_notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return one line per model with its sizes, and one for what all protocols have in common."""
    found = points(records)
    shapes: dict[str, set[tuple[str, Any]]] = {}
    for point in found:
        sizes = set(point.cell.records[0].config["model"].items())
        shapes[point.model] = shapes.get(point.model, sizes) & sizes  # the room for tokens grows with the text
    lines = [f"{shown(name)}: {flat(_told(name, dict(sizes)))}." for name, sizes in shapes.items()]
    common = [{(name, flat(v) if isinstance(v, Mapping) else v) for name, v in p.protocol.items()} for p in found]
    same = dict(sorted(set.intersection(*common))) if common else {}
    return (*lines, f"Protocol: {flat(same)}.") if same else tuple(lines)


def _told(model: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes that a kind of model has: texts have no patches, images no vocabulary."""
    foreign = {"name", "vocabulary" if model == "vit" else "patch"}
    return {key: value for key, value in sizes.items() if key not in foreign and value is not None}


def time_ratio(point: Point) -> float | None:
    """Return the time of a shrunk model over that of the whole one."""
    if point.phase == "training":
        return point.mean("step_time_ratio")
    faster = point.mean("throughput_ratio")
    return None if not faster else 1 / faster


def flops_ratio(point: Point) -> float | None:
    """Return the operations of a shrunk model over those of the whole one."""
    return point.mean("step_flops_ratio" if point.phase == "training" else "forward_flops_ratio")


def usual(found: Sequence[Point]) -> list[Point]:
    """Return the points at the length at which most were measured."""
    lengths = [point.length for point in found]
    most = max(sorted(set(lengths)), key=lengths.count, default=0)
    return [point for point in found if point.length == most]


def batch_of_most_sizes(found: Sequence[Point]) -> int:
    """Return the batch at which most sizes were measured, 0 without points."""
    batches = [batch for batch, _ in {(point.batch, point.cell.target) for point in found}]
    return max(sorted(set(batches)), key=batches.count, default=0)

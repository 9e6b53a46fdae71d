"""Cells of one table: records of the same model, data and protocol, and one run per seed.

Perplexities of different data or protocols do not compare, and a store keeps every run for ever, so a table has to
choose. It takes a set of cells that belong together and were trained on enough text, else any, of those the largest,
the newest one if two are equally large, and says what it left out. Bookkeeping of the suite; no part of the paper.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from paper_tables.analysis.context import context, from_weights
from paper_tables.analysis.formats import NOTHING, flat, quantity, share
from paper_tables.analysis.intervals import Interval, mean_interval
from paper_tables.analysis.real_models import position
from paper_tables.analysis.training_length import trained_enough
from paper_tables.item import RECORDS
from paper_tables.methods import label, rank
from paper_tables.metrics import Column, headers, kind, unknown
from results import RunRecord

GLUE_TASKS = {"sst2": "SST-2", "mrpc": "MRPC", "cola": "CoLA", "rte": "RTE", "stsb": "STS-B"}

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Cell:
    """One method at one target share (None: not shrunk), one record per seed, by seed."""

    method: str
    target: float | None
    records: tuple[RunRecord, ...]

    def values(self, metric: str) -> dict[int, float]:
        """Return the value of `metric` for every seed that has it."""
        return {record.seed: record.metrics[metric].value for record in self.records if metric in record.metrics}

    def interval(self, metric: str) -> Interval | None:
        """Return mean and 95% interval of `metric` over seeds; None if no record has it."""
        values = self.values(metric)
        return mean_interval(values.values()) if values else None

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the records."""
        return tuple(record.id for record in self.records)


@dataclass(frozen=True)
class Comparison:
    """Cells that may be compared, in table order, and how many finished records belong to other settings."""

    cells: tuple[Cell, ...]
    left_out: int

    def get(self, method: str, target: float | None) -> Cell | None:
        """Return the cell of a method at a target; a method that knows no target (dense) stands for every target."""
        own = [cell for cell in self.cells if cell.method == method]
        return next((cell for cell in own if cell.target == target), next((c for c in own if c.target is None), None))

    @property
    def targets(self) -> tuple[float, ...]:
        """Target shares that occur, the largest first."""
        return tuple(sorted({cell.target for cell in self.cells if cell.target is not None}, reverse=True))

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """All records of all cells."""
        return tuple(record for cell in self.cells for record in cell.records)


def provenance(cell: Cell) -> dict[str, str]:
    """Return the last columns of a row: how many seeds, where they ran, and which records they are.

    Seeds of a checkout with changes that no commit has are flagged: nobody can run them again.
    """
    dirty = sum(record.dirty for record in cell.records)
    return {
        "Seeds": f"{len(cell.records)}" + (f" ({dirty} dirty)" if dirty else ""),
        "Tier": cell.records[0].tier,
        "Device": ", ".join(sorted({device_name(record) for record in cell.records})),
        RECORDS: " ".join(cell.ids),
    }


def measured(cell: Cell, columns: Sequence[Column]) -> dict[str, str]:
    """Return the columns of a row, each a mean and its interval, and then those of metrics that no table knows."""
    shown = {**headers(columns), **unknown(cell.records)}
    return {header: quantity(cell.interval(name), kind(name, cell.records)) for name, header in shown.items()}


def without_empty_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the columns that no row fills; what a row lacks is NOTHING."""
    table = table.fillna(NOTHING)
    return table.loc[:, [name for name in table if not (table[name] == NOTHING).all()]]


def device_name(record: RunRecord) -> str:
    """Return the name of the device of a run, as far as the record tells it."""
    return str(record.device.get("name") or record.device.get("kind") or "unknown")


def compare(records: Sequence[RunRecord]) -> Comparison:
    """Return the cells that belong together among the finished `records` of one experiment and tier."""
    finished = [record for record in records if record.status == "finished"]
    together = settled(finished)
    by_cell = _grouped(((record.method, record.config.get("target")), record) for record in together)
    cells = [
        Cell(method, target, _one_per_seed(_largest(_grouped((record.config_hash, record) for record in group))))
        for (method, target), group in by_cell.items()
    ]
    cells.sort(key=lambda cell: (cell.target is not None, -(cell.target or 0.0), rank(cell.method)))
    return Comparison(tuple(cells), len(finished) - sum(len(cell.records) for cell in cells))


def settled(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the finished `records` that may stand in one table: of one model, data and protocol.

    A set that was trained on enough text stands before any larger one that was not, and one that starts from trained
    weights before one that starts from nothing.
    """
    finished = from_weights([record for record in records if record.status == "finished"])
    groups = _grouped((context(record), record) for record in finished)
    enough = {key: group for key, group in groups.items() if trained_enough(group)}
    return _largest(enough or groups)


def by_model(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Return the finished `records` of every model, by its name, real models first.

    Numbers of two models share no column.
    """
    grouped = _grouped((_model(record), record) for record in records if record.status == "finished")
    return {model: grouped[model] for model in sorted(grouped, key=position)}


def _model(record: RunRecord) -> str:
    model = record.config.get("model") or {}
    return str(model.get("name") or model.get("pretrained") or "unnamed")


def shape(record: RunRecord) -> tuple[int, int]:
    """Return width and layers of the model of a run, zeros where its settings do not say."""
    model = record.config.get("model") or {}
    return int(model.get("width") or 0), int(model.get("layers") or 0)


def protocol_notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return what stands under a table: model, data, protocol and training of its records, and what was left out."""
    comparison = compare(records)
    if not comparison.cells:
        return ()
    notes = [_setting_note(part, comparison.cells) for part in ("protocol", "data", "model", "training")]
    prints = sorted({record.data_fingerprint for record in comparison.records})
    notes.append(f"Data fingerprint: {', '.join(prints)}.")
    if comparison.left_out:
        notes.append(f"{comparison.left_out} finished records of other settings or older runs are not in this table.")
    return tuple(note for note in notes if note)


def _grouped(pairs: Iterable[tuple[Key, RunRecord]]) -> dict[Key, list[RunRecord]]:
    groups: defaultdict[Key, list[RunRecord]] = defaultdict(list)
    for key, record in pairs:
        groups[key].append(record)
    return dict(groups)


def _largest(groups: dict[Key, list[RunRecord]]) -> list[RunRecord]:
    def size(group: list[RunRecord]) -> tuple[int, int, str]:
        cells = {(record.method, record.config.get("target")) for record in group}
        return (len(cells), len({record.seed for record in group}), max(record.id for record in group))

    return max(groups.values(), key=size, default=[])


def _one_per_seed(group: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    newest = {record.seed: record for record in sorted(group, key=lambda record: record.id)}
    return tuple(newest[seed] for seed in sorted(newest))


def _setting_note(part: str, cells: Sequence[Cell]) -> str:
    users: dict[str, list[str]] = {}
    for cell in cells:
        settings: Any = cell.records[0].config.get(part)
        if settings:
            text = flat(settings) if isinstance(settings, dict) else str(settings)
            users.setdefault(text, []).append(f"{label(cell.method)} {share(cell.target)}")
    if len(users) <= 1:
        return "".join(f"{part.capitalize()}: {text}." for text in users)
    return " ".join(f"{part.capitalize()} of {', '.join(names)}: {text}." for text, names in users.items())

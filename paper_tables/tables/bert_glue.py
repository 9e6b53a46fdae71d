"""BERT on tasks of GLUE at half of its blocks: one column per task, as GLUE's own tables have it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    GLUE_TASKS,
    Cell,
    compare,
    device_name,
)
from paper_tables.analysis.context import from_weights
from paper_tables.analysis.formats import NOTHING, flat, quantity, share
from paper_tables.claims.published import BERT_GLUE, numbers
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label, rank
from results import RunRecord

METRICS = {"f1": "F1", "accuracy": "accuracy", "matthews": "Matthews", "pearson": "Pearson", "spearman": "Spearman"}
CONSTANT = "always the commonest label"


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per method and one for an answer that reads nothing; one column per task that was run."""
    tasks = by_task(records)
    keys = {(cell.method, cell.target) for cells in tasks.values() for cell in cells}
    ordered = sorted(keys, key=lambda key: (key[1] is not None, rank(key[0])))
    rows = [_row(method, target, tasks) for method, target in ordered]
    return pd.DataFrame([_constant(tasks), *rows] if rows else [])


def by_task(records: Sequence[RunRecord]) -> dict[str, tuple[Cell, ...]]:
    """Return the cells that belong together by task, known tasks first; of one model, which a mean over tasks needs."""
    groups: dict[str, list[RunRecord]] = {}
    for record in _of_one_model(records):
        groups.setdefault(_task(record), []).append(record)
    known = [name for name in GLUE_TASKS if name in groups]
    found = {name: compare(groups[name]).cells for name in [*known, *sorted(groups.keys() - GLUE_TASKS.keys())]}
    return {name: cells for name, cells in found.items() if cells}


def _of_one_model(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the finished records of the model with most cells over all tasks, then most seeds, then the newest.

    One that starts from trained weights stands before any that does not.
    """
    models: dict[str, list[RunRecord]] = {}
    for record in from_weights([record for record in records if record.status == "finished"]):
        models.setdefault(json.dumps(record.config.get("model"), sort_keys=True), []).append(record)

    def size(own: list[RunRecord]) -> tuple[int, int, str]:
        cells = {(_task(record), record.method, record.config.get("target")) for record in own}
        return len(cells), len({record.seed for record in own}), max(record.id for record in own)

    return max(models.values(), key=size, default=[])


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return what every task is judged by and was trained with, and what the literature has for trained weights."""
    lines = [_task_note(task, cells[0].records[0]) for task, cells in by_task(records).items()]
    if not lines:
        return ()
    published = [number for number in numbers() if number.setting == BERT_GLUE]
    values = "; ".join(f"{number.method}: {number.metric} {number.value:g}" for number in published)
    sources = ", ".join(dict.fromkeys(number.reference for number in published))
    return (*lines, f"Published for BERT-base from trained weights: {values}. Sources: {sources}.")


def _row(method: str, target: float | None, tasks: dict[str, tuple[Cell, ...]]) -> dict[str, str]:
    cells = {
        task: next((c for c in own if (c.method, c.target) == (method, target)), None) for task, own in tasks.items()
    }
    present = [cell for cell in cells.values() if cell is not None]
    means = [found.mean for cell in present if (found := cell.interval("score")) is not None]
    return {
        "Method": label(method),
        "Blocks kept": NOTHING if target is None else share(target),
        **{
            _header(task, tasks): quantity(None if cell is None else cell.interval("score"))
            for task, cell in cells.items()
        },
        "Mean": f"{sum(means) / len(means):.1f}" if len(means) == len(tasks) else NOTHING,
        "Final step / dense": _range(present, "final_step_time_ratio"),
        "Seeds": "-".join(dict.fromkeys(str(count) for count in sorted({len(cell.records) for cell in present}))),
        "Tier": present[0].records[0].tier,
        "Device": ", ".join(sorted({device_name(record) for cell in present for record in cell.records})),
        RECORDS: " ".join(identity for cell in present for identity in cell.ids),
    }


def _constant(tasks: dict[str, tuple[Cell, ...]]) -> dict[str, str]:
    """Return the row of an answer that is the same whatever the text is: no run, but a count in every record."""
    first = {task: cells[0].interval("majority_score") for task, cells in tasks.items()}
    known = [found.mean for found in first.values() if found is not None]
    return {
        "Method": CONSTANT,
        "Blocks kept": NOTHING,
        **{_header(task, tasks): quantity(found) for task, found in first.items()},
        "Mean": f"{sum(known) / len(known):.1f}" if len(known) == len(tasks) else NOTHING,
        **dict.fromkeys(("Final step / dense", "Seeds", "Tier", "Device"), NOTHING),
        RECORDS: " ".join(cells[0].ids[0] for cells in tasks.values()),
    }


def _range(cells: Sequence[Cell], metric: str) -> str:
    """Return the lowest and the highest mean over tasks."""
    means = sorted(found.mean for cell in cells if (found := cell.interval(metric)) is not None)
    return f"{means[0]:.2f} to {means[-1]:.2f}" if means else NOTHING


def _header(task: str, tasks: dict[str, tuple[Cell, ...]]) -> str:
    return f"{GLUE_TASKS.get(task, task)} ({_metric(tasks[task][0].records[0])})"


def _metric(record: RunRecord) -> str:
    named = str((record.config.get("protocol") or {}).get("score", "score")).split("+")
    return "/".join(METRICS.get(name, name) for name in named)


def _task(record: RunRecord) -> str:
    data = record.config.get("data") or {}
    return str(data.get("configuration") if data.get("source") == "glue" else data.get("source", "unnamed"))


def _task_note(task: str, record: RunRecord) -> str:
    parts = [record.config.get(part) or {} for part in ("protocol", "data", "model", "training")]
    counts = {record.metrics[name].n for name in ("score",) if name in record.metrics}
    held_out = f"{next(iter(counts))} held-out examples; " if counts else ""
    settings = "; ".join(flat(part) for part in parts if part)
    return f"{GLUE_TASKS.get(task, task)}: {held_out}{settings}. Data fingerprint: {record.data_fingerprint}."


ITEM = Table(
    name="bert_glue",
    title="BERT on GLUE at half of its blocks",
    caption="In percent, each task by GLUE's own metric, of two metrics their mean; mean over seeds ± half the width "
    "of the 95% interval (Student's t). The first row reads nothing: a score near it says nothing about a method.",
    experiments=("bert_glue",),
    build=build,
    notes=notes,
    place=13,
)

"""Runs that failed, and so are missing from a table: such a method must not look like one that was never run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from paper_tables.analysis.context import SAME_MODEL_AND_DATA
from paper_tables.analysis.formats import share
from paper_tables.item import Item, Table
from paper_tables.methods import label
from results import RunRecord


def unfinished(item: Item, records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return one line on the runs that are missing in a table because they failed; no line without any.

    A run counts as made up for once its method has finished at its target on the same model, data and protocol.

    Args:
        item: a table of named experiments that does not show failed runs itself.
        records: of one tier, the failed ones too.
    """
    if not isinstance(item, Table) or item.failed or not item.experiments:
        return ()
    own = [record for record in records if record.experiment in item.experiments]
    finished = {_cell(record) for record in own if record.status == "finished"}
    counts = Counter(_name(r) for r in own if r.status == "failed" and _cell(r) not in finished)
    texts = [f"{name} ({count} failed)" for name, count in counts.items()]
    return (f"Not finished: {', '.join(texts)}.",) if texts else ()


def _cell(record: RunRecord) -> str:
    parts = [record.config.get(part) for part in ("target", *SAME_MODEL_AND_DATA)]
    return json.dumps([record.experiment, record.method, *parts], sort_keys=True)


def _name(record: RunRecord) -> str:
    target = record.config.get("target")
    return label(record.method) if target is None else f"{label(record.method)} at {share(target)}"

"""Records of the fine-tuning experiments, apart by model and procedure; shared by their tables, figures and claims."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from paper_tables.analysis.cells import (
    Cell,
    Comparison,
    by_model,
    compare,
)
from results import RunRecord

PROCEDURES = ("one-shot", "fine-tuned")


@dataclass(frozen=True)
class Protocol:
    """Column of a table: a model, a procedure, and their records."""

    model: str
    procedure: str
    records: tuple[RunRecord, ...]

    @property
    def comparison(self) -> Comparison:
        """The cells of its records."""
        return compare(self.records)


def protocols(records: Sequence[RunRecord]) -> list[Protocol]:
    """Return every model and procedure that has finished records: models in their order, one-shot first."""
    found = []
    for model, own in by_model(records).items():
        groups: defaultdict[str, list[RunRecord]] = defaultdict(list)
        for record in own:
            groups[str((record.config.get("protocol") or {}).get("procedure", "unnamed"))].append(record)
        ordered = sorted(groups, key=lambda name: (*[name != known for known in PROCEDURES], name))
        found += [Protocol(model, procedure, tuple(groups[procedure])) for procedure in ordered]
    return found


def kept_share(cell: Cell, comparison: Comparison) -> float | None:
    """Return the share of the dense model's block parameters that a cell has left, zeros not counted; None if unknown.

    The dense model is that of the same protocol, because a method's own history may begin behind its cut.
    """
    dense = comparison.get("dense", None)
    whole = None if dense is None else dense.interval("block_parameters")
    left = cell.interval("block_parameters_nonzero")
    return None if whole is None or left is None else left.mean / whole.mean

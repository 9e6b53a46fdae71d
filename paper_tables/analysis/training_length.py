"""Training tokens per block parameter: on too few of them a dense model is no better than a small one.

Records since metric `tokens_per_parameter` exists say it themselves; for older ones it follows from their settings. 20
is the ratio of compute-optimal training (arXiv 2203.15556).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from paper_tables.analysis.formats import NOTHING
from results import RunRecord

ENOUGH = 19.5
"""Tokens per block parameter from which a set of runs counts as trained on enough text: 20, but for whole steps."""
_METRIC = "tokens_per_parameter"


def tokens_per_parameter(records: Sequence[RunRecord]) -> float | None:
    """Return training tokens per block parameter of the dense model of `records`, which share model and protocol.

    Of the runs that start with the most block parameters the shortest one counts: controls may train for longer.

    Returns:
        None where no record says how long it was trained and with how many block parameters it began.
    """
    blocks = dense_blocks(records)
    largest = (r for r in records if r.plan_history and r.plan_history[0].block_parameters == blocks)
    return min((found for record in largest if (found := _tokens(record, blocks)) is not None), default=None)


def trained_enough(records: Sequence[RunRecord]) -> bool:
    """Return whether `records` were trained on ENOUGH tokens per block parameter."""
    found = tokens_per_parameter(records)
    return found is not None and found >= ENOUGH


def tokens_column(row: Sequence[RunRecord], together: Sequence[RunRecord]) -> dict[str, str]:
    """Return the column of a table with the training tokens of a row per block parameter of the dense model.

    Args:
        row: its records.
        together: the records that it may be compared with, the dense model's among them.
    """
    blocks = dense_blocks(together)
    found = [tokens for record in row if (tokens := _tokens(record, blocks)) is not None]
    return {"Tokens/parameter": f"{sum(found) / len(found):.3g}" if found else NOTHING}


def dense_blocks(records: Iterable[RunRecord]) -> int:
    """Return the block parameters of the dense model, the largest start of any run; 0 if no record has a history."""
    return max((record.plan_history[0].block_parameters for record in records if record.plan_history), default=0)


def _tokens(record: RunRecord, blocks: int) -> float | None:
    """Return training tokens of one run of a language model over `blocks`."""
    if _METRIC in record.metrics:
        return record.metrics[_METRIC].value
    training: dict[str, Any] = record.config.get("training") or {}
    protocol: dict[str, Any] = record.config.get("protocol") or {}
    steps, batch, length = training.get("steps"), training.get("batch_size"), protocol.get("sequence_length")
    if not blocks or not (steps and batch and length):
        return None
    return float(steps * batch * length / blocks)

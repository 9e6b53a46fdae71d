"""Training tokens per block parameter: on too few of them a dense model is no better than a small one.

Records since metric `tokens_per_parameter` exists say it themselves; for older ones it follows from their settings. 20
is the ratio of compute-optimal training (arXiv 2203.15556).
"""

from __future__ import annotations

from collections.abc import Iterable

from results import RunRecord

ENOUGH = 19.5
"""Tokens per block parameter from which a set of runs counts as trained on enough text: 20, but for whole steps."""
HEADER = "Tokens/parameter"
_METRIC = "tokens_per_parameter"


def tokens_per_parameter(records: Iterable[RunRecord]) -> float | None:
    """Return training tokens per block parameter of the dense model of `records`, which share model and protocol.

    Of the runs that start with the most block parameters the shortest one counts: controls may train for longer.

    Returns:
        None where no record says how long it was trained and with how many block parameters it began.
    """
    starts = [
        (record.plan_history[0].block_parameters, found)
        for record in records
        if record.plan_history and (found := _tokens(record)) is not None
    ]
    largest = max((blocks for blocks, _ in starts), default=0)
    return min((found for blocks, found in starts if blocks == largest and blocks), default=None)


def trained_enough(records: Iterable[RunRecord]) -> bool:
    """Return whether `records` were trained on ENOUGH tokens per block parameter."""
    found = tokens_per_parameter(records)
    return found is not None and found >= ENOUGH


def _tokens(record: RunRecord) -> float | None:
    """Return tokens per block parameter of one run of a language model from scratch."""
    if _METRIC in record.metrics:
        return record.metrics[_METRIC].value
    training, protocol = (record.config.get(part) or {} for part in ("training", "protocol"))
    sizes = [training.get("steps"), training.get("batch_size"), protocol.get("sequence_length")]
    blocks = record.plan_history[0].block_parameters
    if not all(isinstance(size, int) for size in sizes) or not blocks:
        return None
    steps, batch, length = sizes
    return float(steps * batch * length / blocks)

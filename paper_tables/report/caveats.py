"""Caveats of a report, made from its records: how small, how briefly trained, on what, by how many seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paper_tables.analysis.formats import quantity
from paper_tables.analysis.intervals import Interval
from results import RunRecord

OPTIMAL = 20
"""Tokens per parameter that compute-optimal training asks for: Hoffmann et al., arXiv 2203.15556."""
DENSE = "dense"
_NEAR = 0.95
_NOT_FROM_SCRATCH = ("pretrained", "pretraining")
"""Settings of models that were trained before the run."""
_PAPER = "the paper's headlines are about GPT-2-Small (85 M in its blocks) to LLaMA-1B"


def caveats(tier: str, records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return what a reader must know before any number; nothing without finished records."""
    finished = [record for record in records if record.status == "finished"]
    if not finished:
        return ()
    return tuple(
        line for line in (_scale(tier, finished), _regime(finished), _machine(finished), _seeds(finished)) if line
    )


def tokens_per_parameter(record: RunRecord) -> float | None:
    """Return training tokens over block parameters of a language model from scratch; None for every other record."""
    config = record.config
    model, training, protocol = ((config.get(part) or {}) for part in ("model", "training", "protocol"))
    if "perplexity" not in record.metrics or not record.loss_curve or not model.keys().isdisjoint(_NOT_FROM_SCRATCH):
        return None
    if "tokens_per_parameter" in record.metrics:
        return record.metrics["tokens_per_parameter"].value
    numbers = [training.get("steps"), training.get("batch_size"), protocol.get("sequence_length")]
    if not record.plan_history or not all(isinstance(number, int) for number in numbers):
        return None
    return math.prod(numbers) / record.plan_history[0].block_parameters


def _scale(tier: str, records: Sequence[RunRecord]) -> str:
    sizes = [record.plan_history[0].block_parameters for record in records if record.plan_history]
    if tier == "paper" or not sizes:
        return ""
    low, high = (quantity(Interval(float(size), 0.0, 1), "count") for size in (min(sizes), max(sizes)))
    return (
        f"Reduced scale: models of {low} to {high} block parameters, where {_PAPER}. A direction seen here may turn at "
        "their size."
    )


def _regime(records: Sequence[RunRecord]) -> str:
    """Return the tokens per parameter of the dense models by experiment, and which stay far below the optimum."""
    found: dict[str, float] = {}
    for record in records:
        value = tokens_per_parameter(record) if record.method == DENSE else None
        if value is not None:
            found[record.experiment] = min(value, found.get(record.experiment, value))
    if not found:
        return ""
    text = (
        f"Tokens per block parameter of the dense language models from scratch: {_number(min(found.values()))} to "
        f"{_number(max(found.values()))}; about {OPTIMAL} are compute-optimal (arXiv 2203.15556). Far below that a "
        "dense model need not be better than a small one, and an order of methods says little about longer training."
    )
    short = sorted(name for name, value in found.items() if value < _NEAR * OPTIMAL)
    return text + (f" Below it: {', '.join(short)}." if short else "")


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _machine(records: Sequence[RunRecord]) -> str:
    kinds = sorted({str(record.device.get("kind", "unknown")) for record in records})
    where = ", ".join("CPU" if kind == "cpu" else kind for kind in kinds)
    gpu = "; a GPU may gain less or more from the same widths" if kinds == ["cpu"] else ""
    return f"Times and bytes were measured on: {where}{gpu}."


def _seeds(records: Sequence[RunRecord]) -> str:
    cells: dict[str, set[int]] = {}
    for record in records:
        cells.setdefault(record.config_hash, set()).add(record.seed)
    most = max(map(len, cells.values()))
    return (
        f"At most {most} seed{'s' * (most != 1)} per cell; intervals are over seeds, not over data or learning rates."
    )

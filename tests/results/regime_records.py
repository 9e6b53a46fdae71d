"""Made-up dense and small dense models from scratch, at a length of training at which size matters, or does not yet."""

from __future__ import annotations

from typing import Any

from results import RunRecord
from tests.results.factory import make_record


def sized(
    first: int, *, matters: bool = True, target: float = 0.5, seeds: int = 3, whole: bool = True, **changes: Any
) -> list[RunRecord]:
    """Return a dense model of perplexity 10 and a small one of 20, or of about 10, with their seeds.

    Args:
        first: number of the first record.
        matters: whether the dense model is better.
        target: of the small one.
        seeds: of each.
        whole: whether the dense model is among them, which several targets share.
        changes: fields of all records.
    """
    small = (20.0, 20.2, 20.4) if matters else (9.9, 10.3, 10.2)
    made = [("small_dense", target, small), *([("dense", None, (10.0, 10.1, 10.2))] if whole else [])]
    return [
        make_record(
            first + 10 * place + seed,
            {"perplexity": values[seed % 3]},
            **{"method": method, "target": size, "seed": seed, **changes},
        )
        for place, (method, size, values) in enumerate(made)
        for seed in range(seeds)
    ]

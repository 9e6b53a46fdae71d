"""Calibration data of a run: seeded training examples, for methods that look at activations or gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset, default_collate

from baselines.calibration import SEQUENCES, Calibration


def draw(
    examples: Dataset[Any], batch_size: int, seed: int, source: str, device: str = "cpu", count: int = SEQUENCES
) -> Calibration:
    """Examples drawn without replacement.

    Args:
        examples: with a length; each maps input names to tensors, equally shaped.
        batch_size: examples per batch.
        seed: decides which.
        source: where they come from, for the record.
        device: where the batches are put.
        count: how many, all if there are fewer.
    """
    size: int = len(examples)  # type: ignore[arg-type]
    chosen = np.random.default_rng(seed).choice(size, size=min(count, size), replace=False)
    starts = range(0, len(chosen), batch_size)
    batches = (default_collate([examples[int(n)] for n in chosen[start : start + batch_size]]) for start in starts)
    moved = tuple({name: value.to(device) for name, value in batch.items()} for batch in batches)
    return Calibration(moved, source, seed)


def described(calibration: Calibration) -> dict[str, Any]:
    """Describe the calibration data of a method for its record."""
    return {
        "source": calibration.source,
        "sequences": calibration.sequences,
        "sequence_length": calibration.sequence_length,
        "seed": calibration.seed,
    }

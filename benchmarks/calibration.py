"""Calibration data of a run: seeded sequences of its text, for methods that look at activations or gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from baselines.calibration import SEQUENCES, Calibration


def draw(
    sequences: NDArray[np.int64], batch_size: int, seed: int, source: str, device: str = "cpu", count: int = SEQUENCES
) -> Calibration:
    """Sequences drawn without replacement.

    Args:
        sequences: int64 (sequences, length), training text.
        batch_size: sequences per batch.
        seed: decides which.
        source: where the text comes from, for the record.
        device: where the batches are put.
        count: how many, all if there are fewer.
    """
    chosen = np.random.default_rng(seed).choice(len(sequences), size=min(count, len(sequences)), replace=False)
    tokens = torch.from_numpy(sequences[chosen]).to(device)
    batches = tuple({"input_ids": batch, "labels": batch} for batch in tokens.split(batch_size))
    return Calibration(batches, source, seed)


def described(calibration: Calibration) -> dict[str, Any]:
    """What a record says about the data that a method was given."""
    return {
        "source": calibration.source,
        "sequences": calibration.sequences,
        "sequence_length": calibration.sequence_length,
        "seed": calibration.seed,
    }

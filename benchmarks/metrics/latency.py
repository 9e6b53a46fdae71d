"""How long one sequence takes through a compressed model, beside the dense one.

The two take turns in one process, because machines slow down and speed up, and every turn has tokens of its own.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from results.record import Metric

_WARM_UP = 3


def latency_metrics(model: nn.Module, dense: nn.Module, tokens: Tensor) -> dict[str, Metric]:
    """Median time of one forward pass, and its ratio to the dense model's.

    Args:
        model: the compressed model.
        dense: the whole one, on the same device.
        tokens: int64 (turns, length): one sequence per turn, on the device; turns above 3.

    Returns:
        `latency` in seconds and `latency_ratio`, compressed / dense.
    """
    seconds = interleaved(model, dense, tokens)
    medians = [statistics.median(values) for values in seconds]
    return {
        "latency": Metric(medians[0], "s", False, n=len(seconds[0])),
        "latency_ratio": Metric(medians[0] / medians[1], "compressed / dense", False, n=len(seconds[0])),
    }


@torch.no_grad()
def interleaved(model: nn.Module, dense: nn.Module, tokens: Tensor) -> tuple[list[float], list[float]]:
    """Seconds of every counted turn of both models."""
    seconds: tuple[list[float], list[float]] = ([], [])
    model.eval()
    dense.eval()
    for turn, sequence in enumerate(tokens):
        for measured, candidate in zip(seconds, (model, dense), strict=True):
            began = time.perf_counter()
            candidate(input_ids=sequence[None])
            if tokens.is_cuda:
                torch.cuda.synchronize()
            if turn >= _WARM_UP:
                measured.append(time.perf_counter() - began)
    return seconds

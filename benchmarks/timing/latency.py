"""Latency of one sequence through a compressed model, compared with the dense one.

The two are interleaved in one process, and every turn has tokens of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing.interleaved import interleave
from results.record import Metric

_WARM_UP = 3


def latency_metrics(model: nn.Module, dense: nn.Module, tokens: Tensor) -> dict[str, Metric]:
    """Median time of one forward pass, and its ratio to the dense model's.

    Args:
        model: the compressed model.
        dense: the dense model, on the same device.
        tokens: int64 (turns, length): one sequence per turn, on the device; turns above 3.

    Returns:
        `latency` in seconds and `latency_ratio`, compressed / dense.
    """
    passes = [_forward(candidate, tokens) for candidate in (model, dense)]
    compressed, reference = interleave(passes, len(tokens) - _WARM_UP, _WARM_UP, tokens.device.type)
    medians = statistics.median(compressed), statistics.median(reference)
    return {
        "latency": Metric(medians[0], "s", False, n=len(compressed)),
        "latency_ratio": Metric(medians[0] / medians[1], "compressed / dense", False, n=len(compressed)),
    }


def _forward(model: nn.Module, tokens: Tensor) -> Callable[[int], None]:
    model.eval()

    @torch.no_grad()
    def forward(turn: int) -> None:
        model(input_ids=tokens[turn][None])

    return forward

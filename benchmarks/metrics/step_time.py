"""How long a training step takes: over the run, and of the final model beside a dense one.

Machines slow down and speed up, so the ratio is measured by taking turns in one process, not by comparing two runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from results.record import Metric

_WARM_UP = 2  # first steps allocate optimizer state and caches


def step_time_metrics(step_seconds: Sequence[float], ratio: float, turns: int) -> dict[str, Metric]:
    """Median training step of the run, and the final model's step over the dense model's.

    Args:
        step_seconds: seconds of every optimizer step of the run, hooks of the method included.
        ratio: `final_step_time_ratio`.
        turns: measurements behind the ratio.
    """
    return {
        "step_time": Metric(statistics.median(step_seconds), "s", False, n=len(step_seconds)),
        "final_step_time_ratio": Metric(ratio, "final / dense", False, n=turns),
    }


def final_step_time_ratio(final: nn.Module, dense: nn.Module, batch: Tensor, turns: int) -> float:
    """Median time of a plain training step of the final model over that of the dense model, taking turns.

    Both are trained here with AdamW, so neither may be used afterwards.

    Args:
        final: the model that the run ended with.
        dense: a fresh dense model of the same settings.
        batch: int64 (sequences, length), on the models' device.
        turns: steps per model that count.

    Returns:
        A ratio; below 1 the final model is faster.
    """
    steppers = [_stepper(final, batch), _stepper(dense, batch)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + _WARM_UP):
        for measured, step in zip(seconds, steppers, strict=True):
            began = time.perf_counter()
            step()
            if batch.is_cuda:
                torch.cuda.synchronize()
            if turn >= _WARM_UP:
                measured.append(time.perf_counter() - began)
    return statistics.median(seconds[0]) / statistics.median(seconds[1])


def _stepper(model: nn.Module, batch: Tensor):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    model.train()

    def step() -> None:
        with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=batch.is_cuda):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step

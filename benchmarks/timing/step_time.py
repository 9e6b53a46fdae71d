"""Duration of a training step: over the run, and of the final model compared with a dense one.

Machines slow down and speed up, so the ratio is measured interleaved in one process, not by comparing two runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import nn

from baselines.calibration import Batch, batch_loss
from benchmarks.timing.interleaved import interleave
from results.record import Metric

_WARM_UP = 2  # first steps allocate optimizer state and caches


def step_time_metrics(step_seconds: Sequence[float], ratio: float | None, turns: int) -> dict[str, Metric]:
    """Median training step of the run, all of its steps, and the final model's step over the dense model's.

    Args:
        step_seconds: seconds of every optimizer step of the run, hooks of the method included.
        ratio: `final_step_time_ratio`; None where it could not be measured, and then it is left out.
        turns: measurements behind the ratio.
    """
    compared = {} if ratio is None else {"final_step_time_ratio": Metric(ratio, "final / dense", False, n=turns)}
    return {
        "step_time": Metric(statistics.median(step_seconds), "s", False, n=len(step_seconds)),
        "training_seconds": Metric(sum(step_seconds), "s", False, n=len(step_seconds)),
        **compared,
    }


def steady_seconds(step_seconds: Sequence[float], events: Sequence[int]) -> float:
    """Seconds of all steps, those that compile and allocate as long as the median one: the first, and one per event.

    Args:
        step_seconds: seconds of every optimizer step of the run.
        events: steps completed when a method cut; the step that follows is the one that compiles.
    """
    usual, apart = statistics.median(step_seconds), {0, *events}
    return sum(usual if step in apart else seconds for step, seconds in enumerate(step_seconds))


def compile_metrics(step_seconds: Sequence[float], events: Sequence[int]) -> dict[str, Metric]:
    """Seconds by which the first step, and the step after an event, are longer than the median one.

    Both compile; the rest of such a step is as long as any.

    Args:
        step_seconds: seconds of every optimizer step of the run.
        events: steps completed when a method cut.
    """
    usual = statistics.median(step_seconds)
    again = [step_seconds[event] - usual for event in events if 0 < event < len(step_seconds)]
    after = {"recompile_seconds": Metric(statistics.median(again), "s", False, n=len(again))} if again else {}
    return {"compile_seconds": Metric(step_seconds[0] - usual, "s", False), **after}


def final_step_time_ratio(final: nn.Module, dense: nn.Module, batch: Batch, turns: int) -> float:
    """Median time of a plain training step of the final model over that of the dense model, interleaved.

    Both are trained here with AdamW, so neither may be used afterwards.

    Args:
        final: the model that the run ended with.
        dense: a fresh dense model of the same settings.
        batch: inputs and labels, on the models' device.
        turns: steps per model that count.

    Returns:
        A ratio; below 1 the final model is faster.
    """
    device = batch["labels"].device.type
    steps = [_stepper(model, batch, device) for model in (final, dense)]
    shrunk, reference = interleave(steps, turns, _WARM_UP, device)
    return statistics.median(shrunk) / statistics.median(reference)


def _stepper(model: nn.Module, batch: Batch, device: str) -> Callable[[int], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    model.train()

    def step(turn: int) -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = batch_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step

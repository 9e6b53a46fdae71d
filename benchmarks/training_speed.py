"""Times training steps of a whole and a shrunk model in turns: the work of experiments/training_speed.py."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import ecospa
from baselines.calibration import batch_loss
from benchmarks.experiment import Outcome, Run, Workplace
from benchmarks.metrics.clock import clock
from benchmarks.metrics.energy import energy_metrics
from benchmarks.metrics.size import size_metrics
from benchmarks.metrics.turns import ratio, take_turns
from benchmarks.random_models import positions
from benchmarks.shapes import SpeedSettings
from benchmarks.shrunk_models import DTYPES, WithLoss, prepare
from ecospa.accounting import parameters, training_flops
from ecospa.families import coupled_pairs
from ecospa.roofline import finish_work, measure_device, step_seconds
from ecospa.trace import StepTrace, trace_step, weightless
from results.record import Metric

_WARM_UP = 3  # first steps allocate optimizer state
_EVENTS = 5


def run_training_speed(run: Run, workplace: Workplace) -> Outcome:
    """Train whole, swapped and shrunk model in turns; then the estimator and events beside steps of the whole one."""
    settings: SpeedSettings = run.cell.settings
    protocol = settings.protocol
    models, given = prepare(run, workplace, _WARM_UP)
    device = measure_device(protocol.device, DTYPES[protocol.precision])
    steps = [_stepper(model, given) for model in (models.dense, models.swapped, models.shrunk)]
    told = _telling(steps[-1], workplace, len(given))
    dense, swapped, shrunk = take_turns([*steps[:-1], told], protocol.turns, _WARM_UP, protocol.device)
    examples, median = protocol.batch, statistics.median
    tokens = positions(settings.model, protocol.sequence)
    flops = [training_flops(model, examples, tokens) for model in (models.dense, models.shrunk)]
    traces = [_traced(model, given[0]) for model in (models.dense, models.shrunk)]
    foretold = [step_seconds(trace, device) for trace in traces]
    metrics = {
        "step_time": Metric(median(shrunk), "s", False, n=len(shrunk)),
        "dense_step_time": Metric(median(dense), "s", False, n=len(dense)),
        "throughput": Metric(examples * tokens / median(shrunk), "tokens / s", True, n=len(shrunk)),
        "step_time_ratio": Metric(ratio(shrunk, dense), "shrunk / dense", False, n=len(shrunk)),
        "step_flops_ratio": Metric(flops[1] / flops[0], "shrunk / dense", False),
        "step_time_over_flops": Metric(ratio(shrunk, dense) / (flops[1] / flops[0]), "time / FLOPs", False),
        "swapped_step_time_ratio": Metric(ratio(swapped, dense), "swapped / dense", False, n=len(swapped)),
        "foretold_step_time_ratio": Metric(foretold[1] / foretold[0], "shrunk / dense", None),
        **size_metrics(models.shrunk),
        "block_share": Metric(parameters(models.shrunk, "blocks") / parameters(models.dense, "blocks"), "", None),
    }
    metrics |= energy_metrics(steps[0], steps[-1], len(given), protocol.device)
    metrics |= _costs_of_shrinking(models.dense, given, protocol.device)  # shrinks the whole model: nothing after it
    names = ("dense", "shrunk")
    payload = {
        "roofline": {
            "device": {"arithmetic": device.arithmetic, "bandwidth": device.bandwidth},
            **{
                name: {"flops": trace.flops, "bytes": sum(size for _, size in trace.operations), "seconds": seconds}
                for name, trace, seconds in zip(names, traces, (median(dense), median(shrunk)), strict=True)
            },
        },
        "seconds": {"dense": dense, "swapped": swapped, "shrunk": shrunk},
        "clock_mhz": clock(protocol.device),
    }
    return Outcome(metrics, "0" * 64, payload=payload, device=protocol.device)


def _stepper(model: nn.Module, given: Sequence[dict[str, Tensor]]) -> Callable[[int], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    model.train()

    def step(turn: int) -> None:
        batch_loss(model, given[turn]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _telling(step: Callable[[int], None], workplace: Workplace, total: int) -> Callable[[int], None]:
    def told(turn: int) -> None:
        step(turn)
        workplace.progress(turn + 1, total)

    return told


def _traced(model: nn.Module, batch: dict[str, Tensor]) -> StepTrace:
    empty = {name: torch.empty_like(value, device="meta") for name, value in batch.items()}
    return trace_step(weightless(WithLoss(model)), empty)


def _costs_of_shrinking(model: nn.Module, given: Sequence[dict[str, Tensor]], device: str) -> dict[str, Metric]:
    """Estimator and event beside a step of the whole model, which is used up: every event cuts, none is the last."""
    step = _stepper(model, given)
    twin = copy.deepcopy(model)
    batch_loss(twin, given[0]).backward()
    estimator = ecospa.CoupledEstimator(twin, coupled_pairs(twin))
    steps, updates = take_turns([step, lambda turn: estimator.update()], len(given) - _WARM_UP, _WARM_UP, device)
    events = _events(model, given, device)
    return {
        "estimator_share": Metric(ratio(updates, steps), "estimator / step", False, n=len(steps)),
        "event_steps": Metric(statistics.median(events) / statistics.median(steps), "event / step", False, n=_EVENTS),
    }


def _events(model: nn.Module, given: Sequence[dict[str, Tensor]], device: str) -> list[float]:
    """Seconds of events that fall on every step of the model at the paper's pace."""
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=1e-5)
    config = ecospa.EcoSpaConfig(target_size=0.2, target_scope="blocks", interval=1, width_multiple=1)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    seconds = []
    for turn in range(_EVENTS + 1):
        batch_loss(model, given[turn % len(given)]).backward()
        sparsity.after_backward()
        optimizer.step()
        finish_work(device)
        began = time.perf_counter()
        sparsity.after_step()
        finish_work(device)
        seconds.append(time.perf_counter() - began)
        optimizer.zero_grad()
    return seconds[1:]  # the first swaps the classes, too

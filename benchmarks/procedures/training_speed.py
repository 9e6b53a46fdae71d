"""Interleaved timing of training steps of a dense and a shrunk model, for experiments/training_speed.py."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

import ecospa
from baselines.calibration import batch_loss
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.models.synthetic import positions
from benchmarks.specs.synthetic import SpeedProtocol, SpeedSettings, TrainingMode
from benchmarks.timing.candidates import DTYPES, Candidates, WithLoss, prepare
from benchmarks.timing.clock import clock
from benchmarks.timing.compilation import all_compiled, compiling
from benchmarks.timing.controls import control_metrics
from benchmarks.timing.energy import energy_metrics
from benchmarks.timing.inference import Timed
from benchmarks.timing.interleaved import interleave, ratio
from benchmarks.timing.training_step import stepper
from ecospa.accounting import parameters, training_flops
from ecospa.families import coupled_pairs
from ecospa.roofline import finish_work, measure_device, step_seconds
from ecospa.trace import StepTrace, trace_step, weightless
from results.record import Metric

_WARM_UP = 3  # first steps allocate optimizer state
_EVENTS = 5


def execute(run: Run, context: RunContext) -> RunResult:
    """Time steps of dense and shrunk model, interleaved with the swapped one, or in a mode vs. both without it."""
    settings: SpeedSettings = run.cell.settings
    protocol = settings.protocol
    models, batches = prepare(run, context, _WARM_UP)
    with compiling(protocol.mode == "compiled", context.threads):
        timed = _candidates(models, batches, protocol)
        steps = {name: one.work for name, one in timed.items()}
        works = [
            _with_progress(step, context, len(batches)) if name == "shrunk" else step for name, step in steps.items()
        ]
        with all_compiled():
            taken = interleave(works, protocol.turns, _WARM_UP, protocol.device)
            energy = energy_metrics(steps["dense"], steps["shrunk"], len(batches), protocol.device)
    seconds = dict(zip(timed, taken, strict=True))
    metrics = _speeds(settings, models, seconds) | energy
    payload = {"seconds": seconds, "clock_mhz": clock(protocol.device)}
    if protocol.mode == "compiled":
        for name, prefix in (("dense", "dense_"), ("shrunk", "")):
            metrics[f"{prefix}compile_seconds"] = Metric(timed[name].compile_seconds, "s", False)
    if protocol.mode == "plain":
        predicted, payload["roofline"] = _predicted(models, batches[0], protocol, seconds)
        # shrinks the dense model: nothing after it
        metrics |= predicted | _costs_of_shrinking(models.dense, batches, protocol.device)
    return RunResult(metrics, "0" * 64, payload=payload, device=protocol.device)


def _candidates(models: Candidates, batches: Sequence[dict[str, Tensor]], protocol: SpeedProtocol) -> dict[str, Timed]:
    """Candidates by name: dense, swapped and shrunk; in other modes dense and shrunk, with and without the mode."""
    mode = cast(TrainingMode, protocol.mode)
    if mode == "plain":
        wanted = {"dense": models.dense, "swapped": models.swapped, "shrunk": models.shrunk}
        return {name: stepper(model, batches) for name, model in wanted.items()}
    plain = {"dense_plain": copy.deepcopy(models.dense), "plain": copy.deepcopy(models.shrunk)}
    return {
        **{name: stepper(model, batches) for name, model in plain.items()},
        "dense": stepper(models.dense, batches, mode),
        "shrunk": stepper(models.shrunk, batches, mode),
    }


def _speeds(settings: SpeedSettings, models: Candidates, seconds: Mapping[str, list[float]]) -> dict[str, Metric]:
    """Metrics of the interleaved timings, with the FLOPs and sizes of the models."""
    protocol, median = settings.protocol, statistics.median
    tokens = positions(settings.model, protocol.sequence)
    flops = [training_flops(model, protocol.batch, tokens) for model in (models.dense, models.shrunk)]
    dense, shrunk = seconds["dense"], seconds["shrunk"]
    faster, saved, turns = ratio(shrunk, dense), flops[1] / flops[0], len(shrunk)
    metrics = {
        "step_time": Metric(median(shrunk), "s", False, n=turns),
        "dense_step_time": Metric(median(dense), "s", False, n=turns),
        "throughput": Metric(protocol.batch * tokens / median(shrunk), "tokens / s", True, n=turns),
        "step_time_ratio": Metric(faster, "shrunk / dense", False, n=turns),
        "step_flops_ratio": Metric(saved, "shrunk / dense", False),
        "step_time_over_flops": Metric(faster / saved, "time / FLOPs", False),
        **model_metrics(models.shrunk),
        "block_share": Metric(parameters(models.shrunk, "blocks") / parameters(models.dense, "blocks"), "", None),
    }
    return metrics | control_metrics(seconds, saved, "step_time")


def _predicted(
    models: Candidates, batch: dict[str, Tensor], protocol: SpeedProtocol, seconds: Mapping[str, list[float]]
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """Predict the ratio of step times by a trace and measured rates; also place both models in the roofline."""
    device = measure_device(protocol.device, DTYPES[protocol.precision])
    traces = {"dense": _traced(models.dense, batch), "shrunk": _traced(models.shrunk, batch)}
    predicted = {name: step_seconds(trace, device) for name, trace in traces.items()}
    rates: dict[str, Any] = {"arithmetic": device.arithmetic, "bandwidth": device.bandwidth}
    if device.alignment_shares:
        rates["alignment_shares"] = [list(entry) for entry in device.alignment_shares]
    roofline: dict[str, Any] = {"device": rates}
    for name, trace in traces.items():
        moved = sum(operation.bytes for operation in trace.operations)
        roofline[name] = {"flops": trace.flops, "bytes": moved, "seconds": statistics.median(seconds[name])}
    saved = predicted["shrunk"] / predicted["dense"]
    return {"foretold_step_time_ratio": Metric(saved, "shrunk / dense", None)}, roofline


def _with_progress(step: Callable[[int], object], context: RunContext, total: int) -> Callable[[int], None]:
    def reported(turn: int) -> None:
        step(turn)
        context.progress(turn + 1, total)

    return reported


def _traced(model: nn.Module, batch: dict[str, Tensor]) -> StepTrace:
    empty = {name: torch.empty_like(value, device="meta") for name, value in batch.items()}
    return trace_step(weightless(WithLoss(model)), empty)


def _costs_of_shrinking(model: nn.Module, batches: Sequence[dict[str, Tensor]], device: str) -> dict[str, Metric]:
    """Estimator and event vs. a step of the dense model, which is used up: every event cuts, none is the last."""
    step = stepper(model, batches).work
    twin = copy.deepcopy(model)
    batch_loss(twin, batches[0]).backward()
    estimator = ecospa.CoupledEstimator(twin, coupled_pairs(twin))
    steps, updates = interleave([step, lambda turn: estimator.update()], len(batches) - _WARM_UP, _WARM_UP, device)
    events = _events(model, batches, device)
    return {
        "estimator_share": Metric(ratio(updates, steps), "estimator / step", False, n=len(steps)),
        "event_steps": Metric(statistics.median(events) / statistics.median(steps), "event / step", False, n=_EVENTS),
    }


def _events(model: nn.Module, batches: Sequence[dict[str, Tensor]], device: str) -> list[float]:
    """Seconds of events that fall on every step of the model at the paper's pace."""
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=1e-5)
    config = ecospa.EcoSpaConfig(target_size=0.2, target_scope="blocks", interval=1, width_multiple=1)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    seconds = []
    for turn in range(_EVENTS + 1):
        batch_loss(model, batches[turn % len(batches)]).backward()
        sparsity.after_backward()
        optimizer.step()
        finish_work(device)
        began = time.perf_counter()
        sparsity.after_step()
        finish_work(device)
        seconds.append(time.perf_counter() - began)
        optimizer.zero_grad()
    return seconds[1:]  # the first swaps the classes, too

"""One training run, from its settings to its outcome.

The same function carries a smoke run and a run of days, whatever the task: transformers.Trainer trains, the method's
hooks shrink, and what is measured afterwards does not depend on the method. A run that was killed goes on from its last
checkpoint.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import nn

from benchmarks import task
from benchmarks.data import calibration
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.metrics.flops import flops_metrics, step_flops, utilisation_metrics
from benchmarks.metrics.memory import memory_metrics
from benchmarks.metrics.training_length import training_length_metrics
from benchmarks.metrics.training_state import training_state_metrics
from benchmarks.specs.training import TrainingSpec
from benchmarks.timing.candidates import DTYPES
from benchmarks.timing.step_time import compile_metrics, final_step_time_ratio, steady_seconds, step_time_metrics
from benchmarks.training.loop import Started, train
from ecospa import UnsupportedModelError
from ecospa.dense import dense_parameters
from ecospa.roofline import measure_device
from results.plan_history import PlanEvent
from results.record import Metric

_TURNS = 10  # steps behind the ratio of step times
_RATIO = "final_step_time_ratio"


def execute(run: Run, context: RunContext) -> RunResult:
    """Train, shrink, evaluate, measure.

    Args:
        run: a cell whose settings are TrainingSettings, and a seed.
        context: folder, threads, progress.

    Returns:
        The outcome with the metrics of the task and those of every training run.

    Raises:
        MissingSourceError: the data are not at hand.
        FloatingPointError: the loss became NaN or infinite.
    """
    trained = train(run, context)
    started = trained.started
    metrics = _measure(run, started, trained.task)
    calibrated = {"calibration": calibration.described(started.data)} if started.method.needs_calibration else {}
    left_out = {} if _RATIO in metrics else {"left_out": {_RATIO: "two models in training did not fit into memory"}}
    return RunResult(
        metrics=metrics,
        data_fingerprint=trained.task.fingerprint,
        plan_history=_plan_history(started),
        loss_curve=_loss_curve(trained.log),
        payload={**calibrated, **left_out},
        device=run.cell.settings.training.device,
        seconds_before=trained.seconds_before,
    )


def _measure(run: Run, started: Started, loaded: task.Task) -> dict[str, Metric]:
    training, model = run.cell.settings.training, started.model
    quality = loaded.evaluate(model)
    sizes = model_metrics(model, started.method)
    final_flops = step_flops(model, training.batch_size, loaded.tokens, loaded.batch(1, training.device))
    ratio = _step_time_ratio(model, loaded, training)
    history = _plan_history(started)
    return {
        **quality,
        **sizes,
        **_length(model, history, loaded, training),
        **flops_metrics(final_flops, started.progress.run_flops),
        **step_time_metrics(started.progress.step_seconds, ratio, _TURNS),
        **memory_metrics(started.progress.peak_memory),
        **training_state_metrics(started.progress.training_bytes_peak, started.progress.training_bytes),
        "shrink_events": Metric(float(len(history) - 1), "events", None),
        **_throughput(started, training),
    }


def _throughput(started: Started, training: TrainingSpec) -> dict[str, Metric]:
    """Use of the device, where one has matrix units to be used or a run has been made for it."""
    if training.throughput is None and training.device == "cpu":
        return {}
    progress = started.progress
    events = [event.step for event in _plan_history(started)]
    seconds = steady_seconds(progress.step_seconds, events) + progress.data_seconds
    rate = measure_device(training.device, DTYPES[training.precision]).arithmetic
    compiled = training.throughput is not None and training.throughput.compile_blocks
    return {
        "data_seconds": Metric(progress.data_seconds, "s", False, n=len(progress.step_seconds)),
        **utilisation_metrics(progress.run_flops, seconds, rate),
        **(compile_metrics(progress.step_seconds, events) if compiled else {}),
    }


def _length(
    model: nn.Module, history: tuple[PlanEvent, ...], loaded: task.Task, training: TrainingSpec
) -> dict[str, Metric]:
    try:
        dense = dense_parameters(model, "blocks")  # a small dense model tells, too, what it was narrowed from
    except UnsupportedModelError:  # blocks that a method has rebuilt: they began at full size
        dense = history[0].block_parameters
    tokens = training.steps * training.batch_size * loaded.tokens
    return training_length_metrics(history, training.steps, tokens, dense)


def _step_time_ratio(model: nn.Module, loaded: task.Task, training: TrainingSpec) -> float | None:
    """The last of the measurements; None where the dense model in training does not fit together with the final one.

    A run of days is not to lose its quality to a ratio of times.
    """
    gc.collect()  # the Trainer and its optimizer's state, which refer to each other
    if training.device == "cuda":
        torch.cuda.empty_cache()
    try:
        return final_step_time_ratio(
            model, loaded.build(), loaded.batch(training.micro_batch_size, training.device), _TURNS
        )
    except torch.OutOfMemoryError:
        return None


def _plan_history(started: Started) -> tuple[PlanEvent, ...]:
    """The model before the first step, and what the method says about every event."""
    later = [event for event in started.method.history if event["step"] > 0]
    return tuple(PlanEvent(**event) for event in [started.progress.started, *later])


def _loss_curve(log_history: list[dict[str, Any]]) -> tuple[tuple[int, float], ...]:
    return tuple((int(entry["step"]), float(entry["loss"])) for entry in log_history if "loss" in entry)

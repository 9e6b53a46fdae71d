"""A trained model cut once and evaluated, without a single step: the one-shot procedure of the fine-tuning experiments.

The task is the one of the runs that train, so that both procedures have the same model, text and metrics.
"""

from __future__ import annotations

import time

import torch

from benchmarks import task
from benchmarks.data import calibration
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.models.language import silence_transformers
from benchmarks.specs.training import TrainingSettings
from benchmarks.training.compress import compress
from benchmarks.training.methods import build_method
from results.plan_history import PlanEvent
from results.record import Metric


def execute(run: Run, context: RunContext) -> RunResult:
    """Cut and evaluate.

    Args:
        run: a cell whose settings are TrainingSettings; its training says no more than the size of batches.
        context: folder, threads.

    Raises:
        MissingSourceError: text or weights are not at hand.
    """
    settings: TrainingSettings = run.cell.settings
    training = settings.training
    torch.set_num_threads(context.threads)
    silence_transformers()
    loaded = task.load(run, context.folder)
    data = calibration.draw(loaded.examples, training.micro_batch_size, run.seed, loaded.source, training.device)
    method, model = build_method(settings.method, settings.shrink, run.seed), loaded.build()
    began = time.perf_counter()
    model = compress(method, model, data)
    seconds = time.perf_counter() - began
    return RunResult(
        metrics={
            **loaded.evaluate(model),
            **model_metrics(model, method),
            "compression_time": Metric(seconds, "s", False),
        },
        data_fingerprint=loaded.fingerprint,
        plan_history=tuple(PlanEvent(**event) for event in method.history),
        payload={"calibration": calibration.described(data)},
        device=training.device,
    )

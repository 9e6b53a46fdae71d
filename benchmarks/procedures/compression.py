"""Compresses a trained model with one method and evaluates what is left: the work of experiments/compare.py."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from benchmarks.data import calibration
from benchmarks.data.cache import make_once
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.metrics.flops import forward_flops
from benchmarks.metrics.perplexity import Prediction
from benchmarks.models.language import silence_transformers
from benchmarks.pretrained.subjects import Subject, subject
from benchmarks.specs.compression import CompareSettings
from benchmarks.tasks.language_model import PackedText
from benchmarks.timing.latency import latency_metrics
from benchmarks.training.compress import compress, one_event_method
from ecospa.accounting import parameters
from results.plan_history import PlanEvent
from results.record import Metric

_TURNS = 23  # forward passes behind a latency, the first three of which warm up


def execute(run: Run, context: RunContext) -> RunResult:
    """Compress, evaluate, count and time.

    Raises:
        MissingSourceError: text or weights are not at hand.
    """
    settings: CompareSettings = run.cell.settings
    torch.set_num_threads(context.threads)
    silence_transformers()
    trained = subject(settings, run.cell.tier, context)
    dense, model = trained.build(), trained.build()
    whole = parameters(dense, "blocks")
    spec = settings.calibration
    examples = PackedText(trained.sequences)
    data = calibration.draw(examples, spec.batch_size, run.seed, trained.source, count=spec.sequences)
    method = one_event_method(settings.method, settings.target, settings.width_multiple, model, run.seed)
    began = time.perf_counter()
    model = compress(method, model, data)
    seconds = time.perf_counter() - began
    prediction = trained.text.predict(model)
    before = _dense_prediction(trained, dense, context.folder)
    length, one = settings.protocol.sequence_length, data.first
    flops = forward_flops(model, length, one)
    sizes = model_metrics(model, method)
    metrics = {
        **trained.text.metrics(prediction),
        "perplexity_dense": trained.text.metrics(before)["perplexity"],
        **sizes,
        "block_share": Metric(sizes["block_parameters_nonzero"].value / whole, "of the dense blocks", False),
        "forward_flops": Metric(float(flops), "floating-point operations", False),
        "forward_flops_ratio": Metric(flops / forward_flops(dense, length, one), "compressed / dense", False),
        **latency_metrics(model, dense, torch.from_numpy(trained.sequences[:_TURNS])),
        "compression_time": Metric(seconds, "s", False),
    }
    history = tuple(PlanEvent(**event) for event in method.history)
    return RunResult(metrics, trained.fingerprint, history, payload={"calibration": calibration.described(data)})


def _dense_prediction(trained: Subject, dense: nn.Module, folder: Path) -> Prediction:
    """Return the prediction of the dense model: the same for every run, so it is kept in the work folder."""
    windows = hashlib.sha256(trained.text.inputs.tobytes() + trained.text.labels.tobytes()).hexdigest()[:16]
    path = folder / "trained" / f"dense-{trained.fingerprint[:16]}-{windows}.json"
    make_once(path, lambda partial: partial.write_text(json.dumps(asdict(trained.text.predict(dense)))))
    return Prediction(**json.loads(path.read_text()))

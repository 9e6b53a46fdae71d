"""Compresses a trained model with one method and evaluates what is left: the work of experiments/compare.py."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from benchmarks import calibration
from benchmarks.competitors import build_method, find_method
from benchmarks.compress import compress, one_event
from benchmarks.experiment import Outcome, Run, Workplace
from benchmarks.experiments.compare import CompareSettings
from benchmarks.metrics.flops import forward_flops
from benchmarks.metrics.latency import latency_metrics
from benchmarks.metrics.perplexity import Prediction, perplexity_metrics, predict
from benchmarks.metrics.size import size_metrics
from benchmarks.models import quieten
from benchmarks.subjects import Subject, subject
from ecospa.accounting import parameters
from results.record import Metric, PlanEvent

_EVALUATED_AT_ONCE = 16
_TURNS = 23  # forward passes behind a latency, the first three of which warm up


def run_comparison(run: Run, workplace: Workplace) -> Outcome:
    """Compress, evaluate, count and time.

    Raises:
        MissingSourceError: text or weights are not at hand.
    """
    settings: CompareSettings = run.cell.settings
    torch.set_num_threads(workplace.threads)
    quieten()
    own = subject(settings, run.cell.tier, workplace)
    dense, model = own.build(), own.build()
    whole = parameters(dense, "blocks")
    spec = settings.calibration
    data = calibration.draw(own.sequences, spec.batch_size, run.seed, own.source, count=spec.sequences)
    target = settings.target
    if target is None:  # the control has none, a pattern decides it by itself
        target = find_method(settings.method).only_size(model, "blocks")
    method = build_method(settings.method, one_event(target, settings.width_multiple), run.seed)
    began = time.perf_counter()
    model = compress(method, model, data)
    seconds = time.perf_counter() - began
    prediction = predict(model, own.inputs, own.labels, _EVALUATED_AT_ONCE)
    before = _dense_prediction(own, dense, workplace.folder)
    length = settings.protocol.sequence_length
    operations = forward_flops(model, length)
    sizes = size_metrics(model, method)
    metrics = {
        **perplexity_metrics(prediction, own.words, own.size),
        "perplexity_dense": perplexity_metrics(before, own.words, own.size)["perplexity"],
        **sizes,
        "block_share": Metric(sizes["block_parameters_nonzero"].value / whole, "of the dense blocks", False),
        "forward_flops": Metric(float(operations), "floating-point operations", False),
        "forward_flops_ratio": Metric(operations / forward_flops(dense, length), "compressed / dense", False),
        **latency_metrics(model, dense, torch.from_numpy(own.sequences[:_TURNS])),
        "compression_time": Metric(seconds, "s", False),
    }
    history = tuple(PlanEvent(**event) for event in method.history)
    return Outcome(metrics, own.fingerprint, history, payload={"calibration": calibration.described(data)})


def _dense_prediction(own: Subject, dense: nn.Module, folder: Path) -> Prediction:
    """What the whole model predicts: the same for every run, so it is kept in the work folder."""
    windows = hashlib.sha256(own.inputs.tobytes() + own.labels.tobytes()).hexdigest()[:16]
    path = folder / "trained" / f"dense-{own.fingerprint[:16]}-{windows}.json"
    if not path.exists():
        found = predict(dense, own.inputs, own.labels, _EVALUATED_AT_ONCE)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(asdict(found)))
        partial.replace(path)
    return Prediction(**json.loads(path.read_text()))

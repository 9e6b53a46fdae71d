"""Interleaved timing of prefill or decode by dense and compressed models, for experiments/inference_speed.py."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import nn

import ecospa
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.metrics.flops import forward_flops
from benchmarks.models.synthetic import positions
from benchmarks.specs.synthetic import InferenceMode, SpeedProtocol, SpeedSettings
from benchmarks.timing.candidates import DTYPES, Candidates, prepare
from benchmarks.timing.clock import clock
from benchmarks.timing.compilation import all_compiled, compiling
from benchmarks.timing.controls import control_metrics
from benchmarks.timing.energy import energy_metrics
from benchmarks.timing.inference import Inputs, Timed, decode, prefill, prefill_cache
from benchmarks.timing.interleaved import interleave, is_narrow, ratio
from ecospa.accounting import parameters
from ecospa.roofline import measure_device
from results.record import Metric

_WARM_UP = 2


def execute(run: Run, context: RunContext) -> RunResult:
    """Time prefill of batches, or decode of the tokens after them, by dense and shrunk model, interleaved."""
    settings: SpeedSettings = run.cell.settings
    protocol = settings.protocol
    models, batches = prepare(run, context, _WARM_UP)
    for batch in batches:
        del batch["labels"]
    metrics = _facts(models, batches[0], settings)
    with compiling(protocol.mode == "compiled", context.threads):
        timed = _candidates(models, batches, protocol)

        def with_progress(turn: int) -> None:
            timed["shrunk"].work(turn)
            context.progress(turn + 1, len(batches))

        works = [with_progress if name == "shrunk" else one.work for name, one in timed.items()]
        ready = [one.ready for one in timed.values()]
        with all_compiled():
            enough = _settled([*timed])
            taken = interleave(works, protocol.turns, _WARM_UP, protocol.device, ready, enough)
    seconds = dict(zip(timed, taken, strict=True))
    metrics |= _speeds(settings, seconds, metrics["forward_flops_ratio"].value)
    if protocol.mode == "compiled":
        for name, prefix in (("dense", "dense_"), ("shrunk", "")):
            metrics[f"{prefix}compile_seconds"] = Metric(timed[name].compile_seconds, "s", False)
    if protocol.phase == "prefill":
        metrics |= energy_metrics(timed["dense"].work, timed["shrunk"].work, len(batches), protocol.device)
    device = measure_device(protocol.device, DTYPES[protocol.precision])
    payload = {
        "seconds": seconds,
        "clock_mhz": clock(protocol.device),
        "device": {"arithmetic": device.arithmetic, "bandwidth": device.bandwidth},
    }
    return RunResult(metrics, "0" * 64, payload=payload, device=protocol.device)


def _settled(names: Sequence[str]) -> Callable[[Sequence[Sequence[float]]], bool]:
    """Enough turns: the intervals of the shrunk model's ratio, and of the swapped one's if it is timed, are narrow."""
    dense = names.index("dense")
    compared = [names.index(name) for name in ("shrunk", "swapped") if name in names]
    return lambda seconds: all(is_narrow(seconds[one], seconds[dense]) for one in compared)


def _facts(models: Candidates, batch: Inputs, settings: SpeedSettings) -> dict[str, Metric]:
    """Metrics that do not depend on time: sizes and FLOPs, of models that have not been merged."""
    tokens = positions(settings.model, settings.protocol.sequence)
    one = {name: value[:1] for name, value in batch.items()}
    flops = [forward_flops(model, tokens, one) for model in (models.dense, models.shrunk)]
    facts = {
        "forward_flops_ratio": Metric(flops[1] / flops[0], "shrunk / dense", False),
        **model_metrics(models.shrunk),
        "block_share": Metric(parameters(models.shrunk, "blocks") / parameters(models.dense, "blocks"), "", None),
    }
    if settings.protocol.phase == "decode":
        held = [_cache_bytes(model.eval(), batch) for model in (models.dense, models.shrunk)]
        facts["cache_bytes_ratio"] = Metric(held[1] / held[0], "shrunk / dense", False)
    return facts


def _candidates(models: Candidates, batches: Sequence[Inputs], protocol: SpeedProtocol) -> dict[str, Timed]:
    """Candidates by name: dense, swapped and shrunk; in other modes dense and shrunk, with and without the mode.

    A compiled decode has the swapped one, too: it is the decode that speed is judged by.
    """
    mode = cast(InferenceMode, protocol.mode)

    def timed(model: nn.Module, mode: InferenceMode) -> Timed:
        return prefill(model, batches, mode) if protocol.phase == "prefill" else decode(model, batches, protocol, mode)

    if mode == "plain":
        wanted = {"dense": models.dense, "swapped": models.swapped, "shrunk": models.shrunk}
        return {name: timed(model, mode) for name, model in wanted.items()}
    plain = {"dense_plain": models.dense, "plain": models.shrunk}
    if mode == "merged":
        plain = {name: copy.deepcopy(model) for name, model in plain.items()}
        for model in (models.dense, models.shrunk):
            ecospa.merge_projections(model.eval())
    swapped = {"swapped": models.swapped} if (protocol.phase, mode) == ("decode", "compiled") else {}
    in_mode = {"dense": models.dense, **swapped, "shrunk": models.shrunk}
    return {
        **{name: timed(model, "plain") for name, model in plain.items()},
        **{name: timed(model, mode) for name, model in in_mode.items()},
    }


def _speeds(settings: SpeedSettings, seconds: Mapping[str, list[float]], flops_ratio: float) -> dict[str, Metric]:
    """Metrics of the interleaved timings."""
    protocol, median = settings.protocol, statistics.median
    tokens = protocol.generated or positions(settings.model, protocol.sequence)
    dense, shrunk = seconds["dense"], seconds["shrunk"]
    faster, turns = ratio(dense, shrunk), len(shrunk)
    metrics = {
        "latency": Metric(median(shrunk) / (protocol.generated or 1), "s", False, n=turns),
        "dense_latency": Metric(median(dense) / (protocol.generated or 1), "s", False, n=turns),
        "throughput": Metric(protocol.batch * tokens / median(shrunk), "tokens / s", True, n=turns),
        "dense_throughput": Metric(protocol.batch * tokens / median(dense), "tokens / s", True, n=turns),
        "throughput_ratio": Metric(faster, "shrunk / dense", True, n=turns),
        "latency_over_flops": Metric(1 / faster / flops_ratio, "time / FLOPs", False),
    }
    for name in ("dense_plain", "plain"):
        if name in seconds:
            per_token = median(seconds[name]) / (protocol.generated or 1)
            metrics[f"{name}_latency"] = Metric(per_token, "s", False, n=turns)
    return metrics | control_metrics(seconds, flops_ratio, "latency")


def _cache_bytes(model: nn.Module, batch: Inputs) -> int:
    """Bytes of the keys and values of a batch."""
    past, _ = prefill_cache(model, batch)
    tensors = (tensor for layer in past.layers for tensor in (layer.keys, layer.values))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

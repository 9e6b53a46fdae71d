"""Times whole and compressed models in turns while they read or write: the work of experiments/inference_speed.py."""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.experiment import Outcome, Run, Workplace
from benchmarks.metrics.clock import clock
from benchmarks.metrics.energy import energy_metrics
from benchmarks.metrics.flops import forward_flops
from benchmarks.metrics.size import size_metrics
from benchmarks.metrics.turns import ratio, take_turns
from benchmarks.random_models import positions
from benchmarks.shapes import SpeedSettings
from benchmarks.shrunk_models import DTYPES, prepare
from ecospa.accounting import parameters
from ecospa.roofline import measure_device
from results.record import Metric

_WARM_UP = 2

Inputs = dict[str, Tensor]


def run_inference_speed(run: Run, workplace: Workplace) -> Outcome:
    """Let whole, swapped and shrunk model read batches of their own, or write tokens after them, in turns."""
    settings: SpeedSettings = run.cell.settings
    protocol = settings.protocol
    models, given = prepare(run, workplace, _WARM_UP)
    for batch in given:
        del batch["labels"]
    writes = protocol.phase == "decode"
    kind = _writer if writes else _reader
    timed = [kind(model, given, settings) for model in (models.dense, models.swapped, models.shrunk)]

    def told(turn: int) -> None:
        timed[-1](turn)
        workplace.progress(turn + 1, len(given))

    dense, swapped, shrunk = take_turns([*timed[:-1], told], protocol.turns, _WARM_UP, protocol.device)
    read = positions(settings.model, protocol.sequence)
    tokens = protocol.generated if writes else read
    one = {name: value[:1] for name, value in given[0].items()}
    flops = [forward_flops(model, read, one) for model in (models.dense, models.shrunk)]
    median, faster = statistics.median, ratio(dense, shrunk)
    metrics = {
        "latency": Metric(median(shrunk) / (protocol.generated or 1), "s", False, n=len(shrunk)),
        "dense_latency": Metric(median(dense) / (protocol.generated or 1), "s", False, n=len(dense)),
        "throughput": Metric(protocol.batch * tokens / median(shrunk), "tokens / s", True, n=len(shrunk)),
        "dense_throughput": Metric(protocol.batch * tokens / median(dense), "tokens / s", True, n=len(dense)),
        "throughput_ratio": Metric(faster, "shrunk / dense", True, n=len(shrunk)),
        "swapped_latency_ratio": Metric(ratio(swapped, dense), "swapped / dense", False, n=len(swapped)),
        "forward_flops_ratio": Metric(flops[1] / flops[0], "shrunk / dense", False),
        "latency_over_flops": Metric(1 / faster / (flops[1] / flops[0]), "time / FLOPs", False),
        **size_metrics(models.shrunk),
        "block_share": Metric(parameters(models.shrunk, "blocks") / parameters(models.dense, "blocks"), "", None),
    }
    if writes:
        held = [_cache_bytes(model, given[0]) for model in (models.dense, models.shrunk)]
        metrics["cache_bytes_ratio"] = Metric(held[1] / held[0], "shrunk / dense", False)
    else:
        metrics |= energy_metrics(timed[0], timed[-1], len(given), protocol.device)
    device = measure_device(protocol.device, DTYPES[protocol.precision])
    payload = {
        "seconds": {"dense": dense, "swapped": swapped, "shrunk": shrunk},
        "clock_mhz": clock(protocol.device),
        "device": {"arithmetic": device.arithmetic, "bandwidth": device.bandwidth},
    }
    return Outcome(metrics, "0" * 64, payload=payload, device=protocol.device)


def _reader(model: nn.Module, given: Sequence[Inputs], settings: SpeedSettings) -> Callable[[int], None]:
    """One forward pass over a batch."""
    model.eval()

    @torch.inference_mode()
    def read(turn: int) -> None:
        model(**given[turn])

    return read


def _writer(model: nn.Module, given: Sequence[Inputs], settings: SpeedSettings) -> Callable[[int], None]:
    """Tokens one after the other, each from the keys and values of all before it; reading the batch is not timed.

    The likeliest token follows; which one it is costs nothing, but it has to be waited for.
    """
    model.eval()
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # from 5.24 on
    pasts = [_read(model, batch) for batch in given]

    @torch.inference_mode()
    def write(turn: int) -> None:
        past, token = pasts[turn]
        pasts[turn] = (None, token)  # a cache grows while it is written to: each serves one turn
        for _ in range(settings.protocol.generated):
            result: Any = model(input_ids=token, use_cache=True, **{name: past})
            token = result.logits[:, -1:].argmax(-1)

    return write


@torch.inference_mode()
def _read(model: nn.Module, batch: Inputs) -> tuple[Any, Tensor]:
    """The cache after a batch, and the token that follows."""
    result: Any = model(**batch, use_cache=True)
    return result.past_key_values, result.logits[:, -1:].argmax(-1)


def _cache_bytes(model: nn.Module, batch: Inputs) -> int:
    """Bytes of the keys and values of a batch."""
    past, _ = _read(model, batch)
    tensors = (tensor for layer in past.layers for tensor in (layer.keys, layer.values))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

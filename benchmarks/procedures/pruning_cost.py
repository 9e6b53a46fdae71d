"""Times the compression of one model and looks at its memory: the work of experiments/pruning_cost.py."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from pathlib import Path

import torch
from torch import nn

import ecospa
from baselines.calibration import Calibration
from baselines.method import TrainingMethod
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.metrics.memory import memory_metrics, peak_memory, reset_peak
from benchmarks.models import synthetic
from benchmarks.models.language import silence_transformers
from benchmarks.specs.pruning_cost import TARGET, CostModel, CostSettings
from benchmarks.specs.synthetic import ModelShape
from benchmarks.training.compress import compress, one_event_method
from results.record import Metric

_WIDTH_MULTIPLE = 2


def execute(run: Run, context: RunContext) -> RunResult:
    """Compress once for the memory, then interleaved with EcoSpa's plan and apply for the time."""
    settings: CostSettings = run.cell.settings
    torch.set_num_threads(context.threads)
    silence_transformers()
    torch.manual_seed(run.seed)
    model = build(settings.model).eval()
    data = random_data(settings, run.seed)

    def method_of(copied: nn.Module) -> TrainingMethod:
        return one_event_method(settings.method, settings.target, _WIDTH_MULTIPLE, copied, run.seed)

    def once(copied: nn.Module) -> float:
        method = method_of(copied)
        began = time.perf_counter()
        compress(method, copied, data)
        return time.perf_counter() - began

    method = method_of(model)
    victim = copy.deepcopy(model)
    reset_peak("cpu")  # making the model may have taken more than compressing it does
    before = resident_memory()
    sizes = model_metrics(compress(method, victim, data), method)
    peak = peak_memory("cpu")
    del victim, method
    method_seconds: list[float] = []
    plain: list[float] = []
    for turn in range(settings.turns):
        method_seconds.append(once(copy.deepcopy(model)))
        plain.append(_plan_and_apply(copy.deepcopy(model)))
        context.progress(turn + 1, settings.turns)
    seconds, reference = statistics.median(method_seconds), statistics.median(plain)
    metrics = {
        "compression_time": Metric(seconds, "s", False, n=len(method_seconds)),
        "plan_and_apply_time": Metric(reference, "s", False, n=len(plain)),
        "time_to_plan_and_apply": Metric(seconds / reference, "method / ecospa.plan_shrink and apply", False),
        **memory_metrics(peak),
        "memory_on_top": Metric(float(max(0, peak - before)), "bytes", False),
        **sizes,
    }
    return RunResult(metrics, "0" * 64, payload={"calibration": {"source": data.source, "sequences": data.sequences}})


def build(spec: CostModel) -> nn.Module:
    """A model of random weights.

    Raises:
        ValueError: a name that is not known.
    """
    hidden = spec.width * 8 // 3 if spec.name == "llama" else None
    return synthetic.build(ModelShape(**dataclasses.asdict(spec), hidden=hidden))


def random_data(settings: CostSettings, seed: int) -> Calibration:
    """Random tokens with themselves or with classes as labels, or random images with classes."""
    spec, generator = settings.model, torch.Generator().manual_seed(seed)
    shape = ModelShape(**dataclasses.asdict(spec))
    whole = synthetic.random_batch(shape, settings.sequences, spec.length, generator)
    parts = {name: value.split(settings.batch_size) for name, value in whole.items()}
    count = len(parts["labels"])
    return Calibration(
        tuple({name: values[number] for name, values in parts.items()} for number in range(count)),
        "random numbers",
        seed,
    )


def resident_memory() -> int:
    """Memory of this process now, in bytes; where the system does not tell, its highest so far."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return peak_memory("cpu")
    import resource

    return int(status.read_text().split()[1]) * resource.getpagesize()


def _plan_and_apply(model: nn.Module) -> float:
    """Seconds of EcoSpa's own one-shot shrink from the weights alone."""
    began = time.perf_counter()
    ecospa.apply_plan(model, ecospa.plan_shrink(model, target_size=TARGET, target_scope="blocks"))
    return time.perf_counter() - began

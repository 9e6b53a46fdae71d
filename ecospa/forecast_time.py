"""Training time of a forecast run: a step of the dense and of the final model, traced against a machine's rates."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from ecospa.architecture import empty_batch
from ecospa.config import ConfigError
from ecospa.families import coupled_pairs
from ecospa.forecast import Forecast, Workload
from ecospa.plan import SparsityPlan
from ecospa.roofline import DEVICES, Device, known_device, measure_device, step_seconds
from ecospa.surgery import apply_plan
from ecospa.trace import stand_for, trace_step

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "mixed": torch.bfloat16}


@dataclass(frozen=True)
class StepTimes:
    """Expected time of a training step of the dense and of the final model, and what the forward pass keeps.

    Attributes:
        device: name of the machine.
        dense, final: seconds.
        run_ratio: time of the whole run over that of a dense run of equal steps.
        dense_activations, final_activations: bytes that one forward pass keeps for its backward pass.
    """

    device: str
    dense: float
    final: float
    run_ratio: float
    dense_activations: int
    final_activations: int


def step_times(model: nn.Module, found: Forecast, workload: Workload, device: str) -> StepTimes:
    """Trace a step of the dense and of the final model against a machine's rates.

    Args:
        model: on the meta device.
        found: its forecast.
        workload: the run.
        device: a name of `roofline.DEVICES`, or "cpu" or "cuda", whose rates are measured now.

    Raises:
        ConfigError: the device is not known, or the model returns no loss.
    """
    machine = _machine(device, workload)
    if not hasattr(model, "config"):
        raise ConfigError("device cannot be used with a timm model, which has no loss of its own; leave it out")
    whole = copy.deepcopy(model).to(_DTYPES[workload.precision])
    final = copy.deepcopy(whole)
    widths = found.stages[-1].widths
    kept = {
        pair.name: torch.arange(widths[pair.name]).expand(pair.groups, -1)
        if pair.unit == 1
        else _first_couples(pair.width, widths[pair.name], pair.groups)
        for pair in coupled_pairs(final)
        if widths[pair.name] < pair.width
    }
    apply_plan(final, SparsityPlan.build(final, kept))
    stand_for(final, "cpu" if device == "cpu" else "cuda")
    batch = empty_batch(model, workload.at_once, workload.sequence)
    traces = [trace_step(candidate, batch) for candidate in (whole, final)]
    if workload.precision == "mixed":  # computes in bf16, updates fp32
        traces = [replace(trace, entry_bytes=4) for trace in traces]
    dense, last = (step_seconds(trace, machine, workload.batch // workload.at_once) for trace in traces)
    return StepTimes(machine.name, dense, last, _run_ratio(found, last / dense), traces[0].saved, traces[1].saved)


def _first_couples(width: int, kept: int, groups: int) -> torch.Tensor:
    """Positions of the first rotary couples (j, j + width / 2)."""
    half = torch.arange(kept // 2)
    return torch.cat([half, half + width // 2]).expand(groups, -1)


def _machine(name: str, workload: Workload) -> Device:
    dtype = _DTYPES[workload.precision]
    if name not in ("cpu", "cuda"):
        return known_device(name, dtype)
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is 'cuda', and there is none here; name one of its kind: {', '.join(DEVICES)}")
    return measure_device(name, dtype)


def _run_ratio(found: Forecast, final: float) -> float:
    """Mean step time over the run / dense step time, read off a straight line between the first and the last size."""
    first, last = found.stages[0].step_flops, found.stages[-1].step_flops
    if first == last:
        return 1.0
    ratios = (final + (1 - final) * (stage.step_flops - last) / (first - last) for stage in found.stages)
    return sum(ratio * stage.steps for ratio, stage in zip(ratios, found.stages, strict=True)) / found.steps

"""One model of random weights three times: dense, dense with the classes of a shrunk one, and shrunk by a method."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from baselines.calibration import Calibration, batch_loss
from benchmarks.experiment import Run, RunContext
from benchmarks.models.language import silence_transformers
from benchmarks.models.synthetic import build, random_batch
from benchmarks.specs.synthetic import SpeedSettings
from benchmarks.training.compress import compress, one_event_method
from ecospa.attention import swap_attention
from ecospa.families import coupled_pairs, family_of
from ecospa.pairs import PairKind

_CALIBRATION = 8  # sequences: enough for a method to choose by, and no time is taken of it
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Candidates:
    """The models that are measured side by side, on one device and in one dtype."""

    dense: nn.Module
    swapped: nn.Module
    shrunk: nn.Module


class Loss(NamedTuple):
    """Output of a model with a loss."""

    loss: Tensor


class WithLoss(nn.Module):
    """A model that gives the loss of a batch, so that timm's and transformers' models are traced the same way."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: Tensor) -> Loss:
        """Return the loss of a batch with labels."""
        return Loss(batch_loss(self.model, batch))


def prepare(run: Run, context: RunContext, warm_up: int) -> tuple[Candidates, list[dict[str, Tensor]]]:
    """Build the models to interleave, and a batch of its own for every turn, those of the warm-up too."""
    torch.set_num_threads(context.threads)
    silence_transformers()
    settings: SpeedSettings = run.cell.settings
    return candidates(settings, run.seed), batches(settings, warm_up + settings.protocol.turns, run.seed)


def candidates(settings: SpeedSettings, seed: int) -> Candidates:
    """Build the model and let the method of the settings change a copy of it; the method `dense` leaves it.

    Args:
        settings: model, method, target, and where it is measured.
        seed: of weights and calibration.
    """
    torch.manual_seed(seed)
    protocol, device = settings.protocol, torch.device(settings.protocol.device)
    dense = build(settings.model).to(device)
    generator = torch.Generator().manual_seed(seed)
    batch = random_batch(settings.model, _CALIBRATION, protocol.sequence, generator)
    calibration = Calibration(({name: value.to(device) for name, value in batch.items()},), "random numbers")
    shrunk = copy.deepcopy(dense)
    if settings.target is not None or settings.method.name != "dense":
        method = one_event_method(settings.method, settings.target, protocol.width_multiple, shrunk, seed)
        shrunk = compress(method, shrunk, calibration)
    swapped = copy.deepcopy(dense)
    swap_classes(swapped)
    dtype = DTYPES[protocol.precision]
    return Candidates(*(model.to(dtype) for model in (dense, swapped, shrunk)))


def swap_classes(model: nn.Module) -> None:
    """Give every attention the class that it has after its first cut; nothing is cut."""
    for pair in coupled_pairs(model):
        if pair.kind is PairKind.QK:
            family: Any = family_of(model.get_submodule(pair.block))
            attention: Any = model.get_submodule(pair.module)
            geometry = family.geometry(attention)
            swap_attention(attention, family.attention, geometry)
            attention.geometry = geometry


def batches(settings: SpeedSettings, count: int, seed: int) -> list[dict[str, Tensor]]:
    """As many different batches, on the device and in the dtype of the models."""
    protocol, generator = settings.protocol, torch.Generator().manual_seed(seed + 1)
    dtype, device = DTYPES[protocol.precision], torch.device(protocol.device)
    made = []
    for _ in range(count):
        batch = random_batch(settings.model, protocol.batch, protocol.sequence, generator)
        made.append({k: v.to(device, dtype if v.is_floating_point() else v.dtype) for k, v in batch.items()})
    return made

"""Modes of a training step: as it is, with a fused optimizer, in mixed precision, or compiled.

Dense and shrunk models are given the same mode, so that their ratio says what shrinking brings in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.calibration import batch_loss
from benchmarks.specs.synthetic import TrainingMode
from benchmarks.timing import compilation
from benchmarks.timing.inference import Timed


def stepper(model: nn.Module, batches: Sequence[dict[str, Tensor]], mode: TrainingMode = "plain") -> Timed:
    """A training step with AdamW, on a batch of its own for every turn.

    Args:
        model: trained here, and compiled in place in the mode "compiled".
        batches: with labels.
        mode: "plain"; "fused", one kernel for the whole update; "autocast", products in bfloat16; "compiled".
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True if mode == "fused" else None)
    device = next(model.parameters()).device.type
    model.train()

    def step(turn: int) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=mode == "autocast"):
            loss = batch_loss(model, batches[turn])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    if mode != "compiled":
        return Timed(step)
    model.compile(backend=compilation.BACKEND, dynamic=False)
    return Timed(step, compile_seconds=compilation.first_seconds(lambda: step(0), device))

"""How much arithmetic a run needed, from the shapes alone (ecospa.accounting).

A method that masks multiplies by zeros and is charged for them: that is what ordinary hardware does. Models whose
blocks a method has rebuilt (adapters, factors, shortcuts) are counted while they run, operation by operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import ecospa
from results.record import Metric


def step_flops(model: nn.Module, sequences: int, sequence_length: int) -> int:
    """Floating-point operations of one training step of this model as it is now."""
    try:
        return int(ecospa.accounting.training_flops(model, sequences, sequence_length))
    except ecospa.UnsupportedModelError:
        return sequences * _counted(model, sequence_length, training=True)


def forward_flops(model: nn.Module, sequence_length: int) -> int:
    """Floating-point operations of one forward pass over one sequence."""
    try:
        return int(ecospa.accounting.forward_flops(model, 1, sequence_length))
    except ecospa.UnsupportedModelError:
        return _counted(model, sequence_length, training=False)


def flops_metrics(final_step: int, run: int) -> dict[str, Metric]:
    """One step of the final model, and the sum over all steps of the run.

    Args:
        final_step: operations of one training step of the final model.
        run: operations of all steps.
    """
    return {
        "step_flops": Metric(float(final_step), "floating-point operations", False),
        "run_flops": Metric(float(run), "floating-point operations", False),
    }


def _counted(model: Any, sequence_length: int, training: bool) -> int:
    """Of one sequence; gradients are asked for of what trains alone, and nothing of the model or of chance changes."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tokens = torch.zeros(1, sequence_length, dtype=torch.int64, device=next(model.parameters()).device)
    counter = FlopCounterMode(display=False)
    # attention as plain matrix products, whose operations the counter knows on every device
    with _evaluating(model), sdpa_kernel(SDPBackend.MATH), counter, torch.set_grad_enabled(training):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        if training:
            torch.autograd.grad(loss, trained, allow_unused=True)
    return int(counter.get_total_flops())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)

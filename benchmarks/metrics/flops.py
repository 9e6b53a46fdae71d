"""Floating-point operations (FLOPs) of a run, from the shapes alone (ecospa.accounting).

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
from baselines.calibration import Batch, batch_loss, outputs
from results.record import Metric


def step_flops(model: nn.Module, examples: int, tokens: int, one: Batch) -> int:
    """FLOPs of one training step of this model as it is now.

    Args:
        model: on the device of `one`.
        examples: of a step.
        tokens: positions of an example inside the model.
        one: a batch of one example, with labels, for a model that cannot be counted from its shapes.
    """
    try:
        return int(ecospa.accounting.training_flops(model, examples, tokens))
    except ecospa.UnsupportedModelError:
        return examples * _counted(model, one, training=True)


def forward_flops(model: nn.Module, tokens: int, one: Batch) -> int:
    """FLOPs of one forward pass over one example; arguments as for `step_flops`."""
    try:
        return int(ecospa.accounting.forward_flops(model, 1, tokens))
    except ecospa.UnsupportedModelError:
        return _counted(model, one, training=False)


def flops_metrics(final_step: int, run: int) -> dict[str, Metric]:
    """One step of the final model, and the sum over all steps of the run.

    Args:
        final_step: FLOPs of one training step of the final model.
        run: FLOPs of all steps.
    """
    return {
        "step_flops": Metric(float(final_step), "floating-point operations", False),
        "run_flops": Metric(float(run), "floating-point operations", False),
    }


def utilisation_metrics(run: int, seconds: float, device_rate: float) -> dict[str, Metric]:
    """Model FLOPs per second of a training, and their share of what the device reaches in large matrix products.

    utilisation = FLOPs of the shapes / seconds / rate: nothing that is computed twice or for padding counts.

    Args:
        run: FLOPs of all steps.
        seconds: of all steps, with the waits for their batches and without compiling.
        device_rate: FLOPs per second in the precision of the training, such as ecospa.roofline.measure_device's.

    Source: Chowdhery et al., PaLM (arXiv 2204.02311), appendix B.
    """
    return {
        "training_flops_rate": Metric(run / seconds, "FLOP / s", True),
        "device_flops_rate": Metric(device_rate, "FLOP / s", None),
        "model_flops_utilisation": Metric(run / seconds / device_rate, "of the device's rate", True),
    }


def _counted(model: Any, one: Batch, training: bool) -> int:
    """Of one example; gradients are asked for of what trains alone, and nothing of the model or of chance changes."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counter = FlopCounterMode(display=False)
    # attention as plain matrix products, whose FLOPs the counter knows on every device
    with _evaluating(model), sdpa_kernel(SDPBackend.MATH), counter, torch.set_grad_enabled(training):
        if training:
            torch.autograd.grad(batch_loss(model, one), trained, allow_unused=True)
        else:
            outputs(model, one)
    return int(counter.get_total_flops())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)

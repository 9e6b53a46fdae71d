"""A method used once on a trained model: all its hooks, and not a single optimizer step.

One-shot methods act in `prepare` or `finish`. Methods that shrink during training see the gradients of every
calibration batch, if they read any, and then one event, which has to come down to the target at once.
"""

from __future__ import annotations

import torch
from torch import nn

from baselines.calibration import Calibration, batch_loss
from baselines.method import TrainingMethod, TrainingState
from benchmarks.experiment import MethodRef
from benchmarks.specs.multiples import WidthMultiple
from benchmarks.specs.training import ShrinkSpec
from benchmarks.training.methods import build_method, find_method


def one_event_method(
    reference: MethodRef, target: float | None, width_multiple: WidthMultiple, model: nn.Module, seed: int
) -> TrainingMethod:
    """A method that has one event and nothing else.

    Args:
        reference: which.
        target: share of the block parameters that is left; None for a method that knows its own size, or has none.
        width_multiple: widths stay multiples of this, or of these by kind of pair.
        model: the dense model, asked for the only size that a pattern can give.
        seed: of every random choice of the method.
    """
    if target is None:
        target = find_method(reference).only_size(model, "blocks")
    shrink = ShrinkSpec(target, total_steps=1, start_step=0, end_step=1, interval=1, width_multiple=width_multiple)
    return build_method(reference, shrink, seed)


def compress(method: TrainingMethod, model: nn.Module, calibration: Calibration) -> nn.Module:
    """Let a method do its work on a model.

    Args:
        method: of `one_event_method`.
        model: the trained model, which may be changed in place.
        calibration: batches with labels.

    Returns:
        The compressed model, in evaluation mode: `model` itself, or what `prepare` gave instead.

    Raises:
        ConfigError, UnsupportedModelError: what the method says about target, data and architecture.
    """
    model.eval()  # the loss without dropout: a calibration pass has nothing random in it
    prepared = method.prepare(model, calibration)
    model = model if prepared is None else prepared
    method_optimizer = method.build_optimizer(model)
    optimizer = method_optimizer or torch.optim.SGD(model.parameters(), lr=0.0)
    if method.stage == "training":
        for batch in calibration.batches if method.reads_gradients else ():
            model.zero_grad(set_to_none=True)
            batch_loss(model, batch).backward()
            method.after_backward(TrainingState(model, optimizer, 0, 1, calibration))
            if method_optimizer is None:
                optimizer.step()  # at a rate of zero: every batch counts as a step, and no weight moves
        method.after_step(TrainingState(model, optimizer, 1, 1, calibration))
    method.finish(TrainingState(model, optimizer, 1, 1, calibration))
    model.zero_grad(set_to_none=True)
    return model.eval()

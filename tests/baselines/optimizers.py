"""Steps of an optimizer on given gradients, and the bytes of its state: what tests of optimizers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from baselines.method import Budget
from tests.baselines.runs import BUDGET

RATE = 3e-3
DECAY = 0.1
STEPS = 6
TRAINED = replace(BUDGET, learning_rate=RATE, weight_decay=DECAY)
"""A budget with the rate and the decay that definitions by hand use."""


def random(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(shape: Sequence[int], steps: int = STEPS) -> list[Tensor]:
    """A gradient per step, the fourth ten times as large as the others, so that limits on growth act."""
    return [random(*shape, seed=step + 1) * (10.0 if step == 3 else 1.0) for step in range(steps)]


def trained(
    make: Callable[[list[dict[str, Any]]], Any], shape: Sequence[int], transposed: bool = False, steps: int = STEPS
) -> tuple[list[Tensor], Any, nn.Parameter]:
    """One matrix, given as (out, in), after every step on the gradients of its shape.

    Returns:
        The matrix as (out, in) after each step, the optimizer, and the parameter.
    """
    weight = nn.Parameter((random(*shape).T if transposed else random(*shape)).clone())
    optimizer = make([{"params": [weight], "transposed": transposed}])
    after = []
    for gradient in gradients(shape, steps):
        weight.grad = (gradient.T if transposed else gradient).clone()
        optimizer.step()
        after.append((weight.T if transposed else weight).detach().clone())
    return after, optimizer, weight


def assert_same_steps(ours: list[Tensor], definition: list[Tensor], tolerance: float = 1e-10) -> None:
    """Both are the same matrices, step by step."""
    assert len(ours) == len(definition)
    worst = [float((own - other).abs().max()) for own, other in zip(ours, definition, strict=True)]
    assert max(worst) < tolerance, worst


def budget(**fields: Any) -> Budget:
    """The budget of these tests with some fields changed."""
    return replace(TRAINED, **fields)

"""RACS: scales that are the best rank-one fit of the squares, the algorithm in loops, and gradients of any size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from baselines.racs import RacsOptimizer, row_and_column_scales
from tests.baselines.optimizers import DECAY, RATE, assert_same_steps, budget, gradients, random, trained


def test_the_scales_are_the_leading_singular_pair_of_the_squares() -> None:
    gradient = random(5, 8)
    rows, columns = row_and_column_scales(gradient, iterations=60)
    left, values, right = torch.linalg.svd(gradient.square())
    best = values[0] * torch.outer(left[:, 0], right[0])
    assert (torch.outer(rows, columns) - best).abs().max() < 1e-10
    assert rows.min() > 0 and columns.min() > 0
    one = torch.outer(random(5).abs(), random(8).abs())
    rows, columns = row_and_column_scales(one)
    assert (torch.outer(rows, columns) - one.square()).abs().max() < 1e-12


def by_hand(shape: tuple[int, int]) -> list[Tensor]:
    """Fixed-point iterations as double sums, averages, limiter and step."""
    weight, after = random(*shape), []
    average_rows: Tensor | None = None
    before = math.inf
    for gradient in gradients(shape):
        out, inner = shape
        q = [1.0] * out
        for _ in range(5):
            total = sum(value * value for value in q)
            s = [sum(float(gradient[i, j]) ** 2 * q[i] for i in range(out)) / total for j in range(inner)]
            total = sum(value * value for value in s)
            q = [sum(float(gradient[i, j]) ** 2 * s[j] for j in range(inner)) / total for i in range(out)]
        rows, columns = torch.tensor(q, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
        if average_rows is None:
            average_rows, average_columns = rows, columns
        else:
            average_rows = 0.9 * average_rows + 0.1 * rows
            average_columns = 0.9 * average_columns + 0.1 * columns
        update = gradient / torch.outer(average_rows, average_columns).sqrt()
        norm = float(update.norm())
        kept = min(norm, 1.01 * before)
        update, before = update * (kept / norm), kept
        weight = weight * (1 - RATE * DECAY) - RATE * update
        after.append(weight)
    return after


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(5, 8), (8, 5)])
def test_a_step_is_the_papers(shape: tuple[int, int], transposed: bool) -> None:
    ours, optimizer, weight = trained(lambda groups: RacsOptimizer(groups, budget()), shape, transposed)
    assert_same_steps(ours, by_hand(shape))
    state = optimizer.state[weight]
    assert sum(value.numel() for value in state.values()) == sum(shape) + 1


@pytest.mark.parametrize("size", [1e-16, 1e-9, 1.0, 1e9])
def test_steps_do_not_depend_on_the_size_of_gradients(size: float) -> None:
    steps = []
    for factor in (1.0, size):
        weight = nn.Parameter(torch.zeros(4, 6))
        weight.grad = random(4, 6).float() * factor
        RacsOptimizer([weight], budget()).step()
        steps.append(weight.detach())
    assert (steps[0] - steps[1]).abs().max() < 1e-5 * steps[0].abs().max()


def test_the_librarys_steps_grow_as_gradients_shrink_which_the_papers_do_not() -> None:
    """The reason for racs.py; the day this fails, that file can go."""
    import pytorch_optimizer

    ratios = []
    for make in (pytorch_optimizer.RACS, lambda weights: RacsOptimizer(weights, budget(weight_decay=0.0))):
        sizes = []
        for factor in (1.0, 0.01):
            weight = nn.Parameter(torch.zeros(4, 6))
            optimizer = make([weight])
            for step in range(200):
                before = weight.detach().clone()
                weight.grad = random(4, 6, seed=step).float() * factor
                optimizer.step()
            sizes.append(float((weight.detach() - before).norm()))
        ratios.append(sizes[1] / sizes[0])
    assert ratios[0] > 5 and abs(ratios[1] - 1) < 1e-3


def test_a_gradient_of_zeros_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    weight.grad = torch.zeros(3, 4)
    RacsOptimizer([weight], budget(weight_decay=0.0)).step()
    assert torch.equal(weight.detach(), torch.ones(3, 4))

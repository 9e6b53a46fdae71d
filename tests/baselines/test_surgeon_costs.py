"""The costs of baselines.surgeon, pure maths, against explicit Kronecker products and against the loss itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.surgeon import column_costs, row_costs


def linear_problem(seed: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights of a two-layer linear model, and per layer the inputs and the gradients of 1/2 |W2 W1 x - t|^2."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 4), (3, 5)))
    x, target = (torch.randn(20, width, generator=generator, dtype=torch.float64) for width in (4, 3))
    hidden = (x @ first.t()).requires_grad_()
    output = hidden @ second.t()
    loss = (output - target).square().sum() / 2
    return [first, second], [x, hidden.detach()], list(torch.autograd.grad(loss, [hidden, output]))


def moment(values: Tensor) -> Tensor:
    """Mean outer product over positions, one position after the other."""
    total = torch.zeros(values.shape[1], values.shape[1], dtype=torch.float64)
    for value in values:
        total += torch.outer(value, value)
    return total / len(values)


def quadratic(weight: Tensor, inputs_moment: Tensor, gradient_moment: Tensor, removed: Tensor) -> float:
    """1/2 dw^T (G (x) A) dw, where dw takes the removed entries to zero; w runs through W row by row."""
    change = torch.where(removed, -weight, 0.0).flatten()
    return float(change @ torch.kron(gradient_moment, inputs_moment) @ change) / 2


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_costs_are_the_quadratic_form_of_the_removed_entries(layer: int, seed: int) -> None:
    weights, fed, gradients = linear_problem(seed)
    weight, a, g = weights[layer], moment(fed[layer]), moment(gradients[layer])
    for dim, costs in ((0, row_costs(weight, a, g)), (1, column_costs(weight, a, g))):
        for number, cost in enumerate(costs.tolist()):
            removed = torch.zeros(weight.shape, dtype=torch.bool).index_fill(dim, torch.tensor([number]), True)
            assert cost == pytest.approx(quadratic(weight, a, g, removed), rel=1e-10)


def test_with_gaussian_noise_the_cost_is_what_the_loss_really_rises_by() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (6, 4)))
    noise = torch.cat([torch.eye(3), -torch.eye(3)]).double() * 3**0.5  # mean 0, covariance 1, the same at every x
    x, noise = x.repeat_interleave(6, 0), noise.repeat(6, 1)

    def loss(w: Tensor) -> float:
        return float((x @ w.t() - (x @ weight.t() + noise)).square().sum(1).mean()) / 2

    a, g = moment(x), moment(-noise)
    for dim, costs in ((0, row_costs(weight, a, g)), (1, column_costs(weight, a, g))):
        for number, cost in enumerate(costs.tolist()):
            cut = weight.index_fill(dim, torch.tensor([number]), 0)
            assert loss(cut) - loss(weight) == pytest.approx(cost, rel=1e-10)


@pytest.mark.parametrize("costs", [row_costs, column_costs])
def test_moments_that_do_not_fit_are_refused(costs: Any) -> None:
    with pytest.raises(ValueError, match=r"input_moment has shape \(3, 3\); for this weight it must be \(2, 2\)"):
        costs(torch.ones(3, 2), torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match=r"gradient_moment has shape \(2, 2\)"):
        costs(torch.ones(3, 2), torch.eye(2), torch.eye(2))

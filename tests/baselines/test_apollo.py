"""APOLLO: the algorithm entry by entry, projections that depend on the seed alone, and what the library does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.apollo import Apollo, ApolloMini, ApolloOptimizer
from tests.baselines.optimizers import DECAY, RATE, assert_same_steps, budget, gradients, random, trained
from tests.baselines.runs import tiny_gpt2, tokens

SHAPES = [((5, 8), False), ((8, 5), False), ((6, 6), False), ((5, 8), True), ((8, 5), True), ((6, 6), True)]
MINI: dict[str, Any] = {"rank": 1, "scale": 128.0, "per_channel": False}


def by_hand(shape: tuple[int, int], drawn: list[Tensor], gap: int, scale: float, per_channel: bool) -> list[Tensor]:
    """The paper's algorithm 1 with the limiter of its code, in loops over channels."""
    beta1, beta2, eps = 0.9, 0.999, 1e-6
    weight, after = random(*shape), []
    first, second, before = 0.0, 0.0, math.inf
    for step, gradient in enumerate(gradients(shape)):
        tall = gradient.T if shape[0] < shape[1] else gradient
        low = tall @ drawn[step // gap]
        first = beta1 * first + (1 - beta1) * low
        second = beta2 * second + (1 - beta2) * low * low
        adam = first / (second**0.5 + eps)
        update = torch.zeros_like(tall)
        for row in range(len(tall)):
            over, under = (adam[row], low[row]) if per_channel else (adam, low)
            update[row] = tall[row] * math.sqrt(float((over**2).sum())) / math.sqrt(float((under**2).sum()))
        norm = math.sqrt(float((update**2).sum()))
        if norm > 1.01 * before:
            update, norm = update * (1.01 * before / norm), 1.01 * before
        before = norm
        correction = math.sqrt(1 - beta2 ** (step + 1)) / (1 - beta1 ** (step + 1))
        update = update * math.sqrt(scale) * correction
        weight = weight - RATE * DECAY * weight - RATE * (update.T if shape[0] < shape[1] else update)
        after.append(weight)
    return after


@pytest.mark.parametrize("options", [{"rank": 2}, MINI])
@pytest.mark.parametrize(("shape", "transposed"), SHAPES)
def test_a_step_is_the_papers(shape: tuple[int, int], transposed: bool, options: dict[str, Any]) -> None:
    drawn: list[Tensor] = []

    class Watched(ApolloOptimizer):
        def _drawn(self, *args: Any) -> Tensor:
            drawn.append(super()._drawn(*args))
            return drawn[-1]

    ours, _, _ = trained(lambda groups: Watched(groups, budget(), update_gap=4, **options), shape, transposed)
    assert [tuple(basis.shape) for basis in drawn] == [(min(shape), options["rank"])] * 2
    scale, per_channel = options.get("scale", 1.0), options.get("per_channel", True)
    assert_same_steps(ours, by_hand(shape, drawn, 4, scale, per_channel))
    with pytest.raises(AssertionError):  # the other granularity is another method
        assert_same_steps(ours, by_hand(shape, drawn, 4, scale, not per_channel), 1e-6)


def test_projections_have_the_variance_of_their_rank_and_follow_from_the_seed() -> None:
    def drawn(seed: int, number: int, step: int) -> Tensor:
        weights = [nn.Parameter(torch.zeros(3000, 40)) for _ in range(2)]
        optimizer = ApolloOptimizer([{"params": weights}], budget(seed=seed))
        return optimizer._drawn(weights[number], step, weights[number], 10)

    basis = drawn(0, 0, 0)
    assert basis.shape == (40, 10)
    many = torch.stack([drawn(seed, 0, 0) for seed in range(30)])
    assert abs(float(many.var()) - 1 / 10) < 0.01 and abs(float(many.mean())) < 0.01
    assert torch.equal(basis, drawn(0, 0, 0))
    others = [drawn(1, 0, 0), drawn(0, 1, 0), drawn(0, 0, 200)]
    assert not any(torch.equal(basis, other) for other in others)


def test_the_state_is_that_of_the_projected_gradient() -> None:
    for method, rank in ((Apollo, 8), (ApolloMini, 1)):
        model = tiny_gpt2()
        optimizer = method(budget()).build_optimizer(model)
        model(input_ids=tokens(0), labels=tokens(0)).loss.backward()
        optimizer.step()
        for block in model.transformer.h:
            state = optimizer.state[block.mlp.c_fc.weight]
            assert state["exp_avg"].shape == state["exp_avg_sq"].shape == (128, rank)
            assert state["projection"].shape == (32, rank)
            assert "exp_avg" in optimizer.state[block.ln_1.weight]


def test_the_librarys_own_stays_in_the_subspace_which_the_papers_does_not() -> None:
    """The reason for apollo.py; the day this fails, that file can go."""
    import pytorch_optimizer

    options = {"rank": 1, "update_proj_gap": 200, "scale": 1.0, "projection_type": "std"}
    ranks = []
    for make in (
        lambda weight: pytorch_optimizer.APOLLO([{"params": [weight], **options}], scale_type="tensor"),
        lambda weight: ApolloOptimizer([{"params": [weight]}], budget(weight_decay=0.0), **MINI),
    ):
        weight = nn.Parameter(torch.zeros(6, 9, dtype=torch.float64))
        weight.grad = random(6, 9)
        make(weight).step()
        ranks.append(int(torch.linalg.matrix_rank(weight.detach())))
    assert ranks == [1, 6]

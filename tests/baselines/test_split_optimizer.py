"""Two optimizers as one: schedules, checkpoints and byte counters see groups and state of both."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

import baselines
import ecospa
from baselines.galore import parameter_groups
from baselines.split_optimizer import MatrixOptimizer, SplitOptimizer, by_rank, limited, with_adamw
from benchmarks.metrics.training_state import optimizer_bytes
from tests.baselines.optimizers import DECAY, RATE, budget, random
from tests.baselines.runs import Run, tiny_gpt2

LESS = ("apollo", "apollo_mini", "fira", "muon", "racs", "scale", "alice", "cola", "sltrain")
"""Methods whose point is memory: the state that they hold is smaller than AdamW's of the dense model."""
MORE = ("soap", "conda")


class Sign(MatrixOptimizer):
    """U = sign(G), with a count of the steps."""

    def update(self, parameter, gradient, state, group):
        state["seen"] = state.get("seen", torch.zeros(2)) + 1
        assert gradient.shape[0] == group["rows"]
        return gradient.sign()


def split() -> tuple[nn.Parameter, nn.Parameter, SplitOptimizer]:
    matrix, vector = nn.Parameter(random(3, 4)), nn.Parameter(random(5))
    parts = [Sign([matrix], budget(), rows=3), torch.optim.AdamW([vector], lr=RATE, weight_decay=DECAY)]
    return matrix, vector, SplitOptimizer(parts)


def step(matrix: nn.Parameter, vector: nn.Parameter, optimizer: SplitOptimizer, seed: int) -> None:
    matrix.grad, vector.grad = random(3, 4, seed=seed), random(5, seed=seed)
    optimizer.step()


def test_each_part_trains_its_parameters_at_the_rate_of_a_schedule() -> None:
    matrix, vector, optimizer = split()
    alone = nn.Parameter(vector.detach().clone())
    other = torch.optim.AdamW([alone], lr=RATE, weight_decay=DECAY)
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda count: 1 / (count + 1)) for one in (optimizer, other)]
    expected = matrix.detach().clone()
    for seed in range(1, 5):
        rate = RATE / seed
        step(matrix, vector, optimizer, seed)
        expected = expected * (1 - rate * DECAY) - rate * random(3, 4, seed=seed).sign()
        alone.grad = random(5, seed=seed)
        other.step()
        for schedule in schedules:
            schedule.step()
        assert torch.equal(vector, alone)
        assert (matrix - expected).abs().max() < 1e-12


def test_transposed_matrices_reach_the_rule_as_out_by_in() -> None:
    straight, turned = nn.Parameter(random(3, 4)), nn.Parameter(random(3, 4).T.clone())
    straight.grad, turned.grad = random(3, 4, seed=1), random(3, 4, seed=1).T.clone()
    groups = [{"params": [straight]}, {"params": [turned], "transposed": True}]
    Sign(groups, budget(), rows=3).step()
    assert torch.equal(straight, turned.T)


def test_a_loaded_state_is_shared_again() -> None:
    whole = split()
    for seed in (1, 2):
        step(*whole, seed)
    again = split()
    with torch.no_grad():
        for own, other in zip(again[:2], whole[:2], strict=True):
            own.copy_(other)
    buffer = io.BytesIO()
    torch.save(whole[2].state_dict(), buffer)
    buffer.seek(0)
    again[2].load_state_dict(torch.load(buffer, weights_only=True))
    for parts in (whole, again):
        step(*parts, 3)
        parts[2].param_groups[0]["lr"] = parts[2].param_groups[1]["lr"] = 0.5
        step(*parts, 4)
    assert all(torch.equal(own, other) for own, other in zip(again[:2], whole[:2], strict=True))
    assert [float(one[2].state[one[0]]["seen"][0]) for one in (whole, again)] == [4.0, 4.0]


def test_a_closure_is_called_once_with_gradients() -> None:
    matrix, vector, optimizer = split()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = matrix.square().sum() + vector.square().sum()
        loss.backward()
        return loss

    before = matrix.square().sum() + vector.square().sum()
    assert torch.equal(optimizer.step(closure), before)
    assert matrix.square().sum() + vector.square().sum() < before


def test_frozen_blocks_are_refused_and_ranks_are_shares_of_the_smaller_side() -> None:
    model = tiny_gpt2()
    ranks = {
        (min(parameter.shape), group["rank"])
        for group in by_rank([g for g in parameter_groups(model) if g["project"]], 4)
        for parameter in group["params"]
    }
    assert ranks == {(32, 8)}
    assert [group["rank"] for group in by_rank([{"params": [torch.ones(2, 9), torch.ones(9, 8)]}], 4)] == [1, 2]
    model.transformer.h.requires_grad_(False)
    with pytest.raises(ecospa.ConfigError, match="no matrix of a block requires a gradient"):
        with_adamw(model, budget(), lambda groups: Sign(groups, budget(), rows=3))


def test_norms_grow_by_one_percent_at_most() -> None:
    state: dict = {}
    sizes = [float(limited(torch.full((2, 2), value), state).norm()) for value in (1.0, 3.0, 1.0, 0.0, 1.0)]
    assert sizes == pytest.approx([2.0, 2.02, 2.0, 0.0, 0.0])


@pytest.mark.parametrize("name", [*LESS, *MORE])
def test_the_state_is_smaller_than_adamws_where_that_is_the_point(name: str) -> None:
    held = {}
    for method in (name, "dense"):
        run = Run.fresh(baselines.load(method)).train(2)
        held[method] = optimizer_bytes(run.optimizer)
    assert held[name] > 0 and (held[name] < held["dense"]) == (name in LESS)

"""GaLore: AdamW at full rank, the paper's equations below it, and a state that is really smaller."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ecospa
from baselines.galore import GaLore, GaLoreAdamW, parameter_groups, projection
from tests.baselines.runs import BUDGET, tiny_gpt2, tokens
from tests.model_zoo import build, inputs, logits

OPTIONS: dict[str, Any] = {"lr": 3e-3, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}


def train(model: Any, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        batch = tokens(step)
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def galore(model: nn.Module, **options: Any) -> GaLoreAdamW:
    return GaLoreAdamW(parameter_groups(model, **options), **OPTIONS)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rank", [32, 1000])
def test_at_full_rank_it_is_adamw_bitwise(dtype: torch.dtype, rank: int) -> None:
    ours, theirs = tiny_gpt2(dtype=dtype), tiny_gpt2(dtype=dtype)
    optimizer = galore(ours, rank=rank)
    train(ours, optimizer, 0, 20)
    train(theirs, torch.optim.AdamW(theirs.parameters(), foreach=False, **OPTIONS), 0, 20)
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, other), name
    assert not any("projection" in state for state in optimizer.state.values())


def test_below_full_rank_it_is_not() -> None:
    ours, theirs = tiny_gpt2(dtype=torch.float64), tiny_gpt2(dtype=torch.float64)
    train(ours, galore(ours, rank=31), 0, 1)
    train(theirs, torch.optim.AdamW(theirs.parameters(), **OPTIONS), 0, 1)
    different = {
        name
        for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True)
        if not torch.equal(own, other)
    }
    matrices = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert different == {f"transformer.h.{block}.{name}.weight" for block in (0, 1) for name in matrices}


def by_hand(weight: Tensor, gradients: list[Tensor], rank: int, gap: int, scale: float, left: bool) -> Tensor:
    """The paper's algorithm, the subspace from the eigenvectors of the Gram matrix, entry by entry of the moments."""
    lr, decay, (beta1, beta2), eps = OPTIONS["lr"], OPTIONS["weight_decay"], OPTIONS["betas"], OPTIONS["eps"]
    first, second = 0.0, 0.0
    for step, gradient in enumerate(gradients):
        square = gradient if left else gradient.T
        if step % gap == 0:
            basis = torch.linalg.eigh(square @ square.T).eigenvectors.flip(1)[:, :rank]
            for column in range(rank):
                if basis[basis[:, column].abs().argmax(), column] < 0:
                    basis[:, column] *= -1
        low = basis.T @ square
        first = beta1 * first + (1 - beta1) * low
        second = beta2 * second + (1 - beta2) * low**2
        rate = first / (1 - beta1 ** (step + 1)) / ((second / (1 - beta2 ** (step + 1))) ** 0.5 + eps)
        update = basis @ rate
        weight = weight - lr * decay * weight - lr * scale * (update if left else update.T)
    return weight


@pytest.mark.parametrize(
    ("shape", "transposed", "left"),
    [
        ((5, 8), False, True), ((8, 5), False, False), ((6, 6), False, True),
        ((5, 8), True, True), ((8, 5), True, False), ((6, 6), True, False),
    ],
)  # fmt: skip
def test_a_projected_step_is_the_papers(shape: tuple[int, int], transposed: bool, left: bool) -> None:
    start, gradients = random(*shape), [random(*shape, seed=seed) for seed in range(1, 8)]
    weight = nn.Parameter(start.clone())
    optimizer = GaLoreAdamW([weight], rank=2, update_gap=3, scale=0.4, transposed=transposed, **OPTIONS)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    expected = by_hand(start, gradients, 2, 3, 0.4, left)
    assert (weight - expected).abs().max() < 1e-12
    assert (weight - by_hand(start, gradients, 2, 7, 0.4, left)).abs().max() > 1e-5  # renewal matters
    assert (weight - by_hand(start, gradients, 3, 3, 0.4, left)).abs().max() > 1e-5


def test_a_projected_step_stays_in_the_subspace() -> None:
    weight = nn.Parameter(torch.zeros(6, 9, dtype=torch.float64))
    weight.grad = random(6, 9)
    GaLoreAdamW([weight], rank=2).step()
    assert torch.linalg.matrix_rank(weight.detach()) == 2


def test_the_projection_keeps_most_of_the_gradient() -> None:
    for shape, side in (((6, 11), 6), ((11, 6), 6)):
        gradient = random(*shape)
        basis = projection(gradient, 3)
        assert basis.shape == (side, 3)
        assert (basis.T @ basis - torch.eye(3)).abs().max() < 1e-12
        low = basis.T @ gradient if shape[0] == side else gradient @ basis
        kept = torch.linalg.svdvals(gradient)[:3].square().sum()
        assert abs(low.square().sum() - kept) < 1e-10
        assert (projection(-gradient, 3) - basis).abs().max() < 1e-12  # signs are fixed, not LAPACK's
        largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
        assert bool((largest > 0).all())


def test_the_state_is_really_smaller() -> None:
    model = tiny_gpt2()
    optimizer = GaLore(BUDGET).build_optimizer(model)
    train(model, optimizer, 0, 1)
    for block in model.transformer.h:
        for weight, moments, side in (
            (block.attn.c_attn.weight, (8, 96), 32),
            (block.mlp.c_fc.weight, (8, 128), 32),
            (block.mlp.c_proj.weight, (128, 8), 32),
            (block.attn.c_proj.weight, (32, 8), 32),
        ):
            state = optimizer.state[weight]
            assert state["exp_avg"].shape == state["exp_avg_sq"].shape == moments
            assert state["projection"].shape == (side, 8)
    held = sum(value.numel() for state in optimizer.state.values() for value in state.values())
    whole = 2 * sum(parameter.numel() for parameter in model.parameters())
    matrices = 2 * 2 * 32 * (96 + 32 + 128 + 128)
    low = 2 * (2 * 8 * (96 + 32 + 128 + 128) + 4 * 32 * 8)
    assert held == whole - matrices + low + len(optimizer.state)  # and a step counter each


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_bitwise(dtype: torch.dtype) -> None:
    whole = tiny_gpt2(dtype=dtype)
    optimizer = galore(whole, update_gap=4)
    train(whole, optimizer, 0, 6)
    again = copy.deepcopy(whole)
    other = galore(again, update_gap=4)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for state, loaded in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert state.keys() == loaded.keys()
        for name, value in state.items():
            assert value.dtype == loaded[name].dtype and torch.equal(value, loaded[name])
    train(whole, optimizer, 6, 11)
    train(again, other, 6, 11)
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    model = tiny_gpt2()
    model.transformer.h[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    optimizer = galore(model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == sum(
        parameter.requires_grad for parameter in model.parameters()
    )
    model.transformer.h[1].mlp.c_fc.weight.register_hook(lambda grad: None)
    train(model, optimizer, 0, 2)
    skipped = nn.Parameter(torch.ones(4, 6))
    both = GaLoreAdamW([skipped, weight := nn.Parameter(torch.ones(4, 6))])
    weight.grad = random(4, 6).float()
    both.step()
    assert torch.equal(skipped, torch.ones(4, 6)) and skipped not in both.state
    assert not torch.equal(weight, torch.ones(4, 6))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("transformer.h.0."), name


def test_the_groups_follow_the_orientation_of_the_weights() -> None:
    for kind, transposed in (("gpt2", True), ("llama-gqa", False), ("bert", False), ("timm-vit", False)):
        model = build(kind)
        plain, projected = parameter_groups(model, rank=3)
        assert not plain["project"] and projected["project"] and projected["rank"] == 3
        assert projected["transposed"] is transposed
        found = sorted(id(p) for group in (plain, projected) for p in group["params"])
        assert found == sorted(id(parameter) for parameter in model.parameters())
        assert all(parameter.ndim == 2 for parameter in projected["params"])


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "vit", "timm-vit"])
def test_it_lowers_the_loss_of_every_family(kind: str) -> None:
    model, batch = build(kind), inputs(kind)
    optimizer = GaLore(replace(BUDGET, learning_rate=1e-2)).build_optimizer(model)
    losses = []
    for _ in range(8):
        loss = logits(model, batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("target", [None, 0.3, 1.0])
def test_the_target_is_not_looked_at(target: float | None) -> None:
    method, model = GaLore(replace(BUDGET, target_size=target, learning_rate=0.02, weight_decay=0.3)), tiny_gpt2()
    method.prepare(model, None)
    optimizer = method.build_optimizer(model)
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(0.02, 0.3)}
    assert len(method.history) == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"rank": 0}, "rank"), ({"rank": 1.5}, "rank"), ({"rank": True}, "rank"), ({"update_gap": 0}, "update_gap"),
        ({"update_gap": None}, "update_gap"), ({"scale": -1.0}, "scale"), ({"lr": float("nan")}, "lr"),
        ({"betas": (1.0, 0.9)}, "betas"), ({"eps": -1e-8}, "eps"), ({"weight_decay": float("inf")}, "weight_decay"),
    ],
)  # fmt: skip
def test_options_outside_their_range_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ecospa.ConfigError, match=field):
        GaLoreAdamW([nn.Parameter(torch.ones(2, 3))], **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_gradient_gives_no_projection(value: float) -> None:
    weight = nn.Parameter(torch.ones(4, 6))
    weight.grad = torch.full((4, 6), value)
    with pytest.raises(ValueError, match="NaN or infinite"):
        GaLoreAdamW([weight], rank=2).step()

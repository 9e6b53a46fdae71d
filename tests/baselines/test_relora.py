"""baselines.relora: resets that change no logit, ranks that add up, state pruned by sorting, and the jagged rate."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ecospa
from baselines.adapters import adapter_layers, adapter_parameters, adapter_weights
from baselines.lora import LoRA
from baselines.method import TrainingState
from baselines.relora import ReLoRA, ScaledRate, prune_state, restart, rewarming
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, Run, assert_same_weights, tiny_gpt2
from tests.baselines.test_lora import KINDS, adapted, matrices
from tests.model_zoo import build, inputs, logits


class Jagged(ReLoRA):
    """Two cycles of six steps, each rate warmed up in three."""

    cycles: ClassVar[int] = 2
    warmup_share: ClassVar[float] = 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_does_not_change_the_function(kind: str) -> None:
    model: Any = adapted(kind)
    layers = adapter_layers(model)
    old = {name: adapter_weights(layer)[0].detach().clone() for name, layer in layers.items()}
    objects = {name: layer.base_layer.weight for name, layer in layers.items()}
    weights = {name: weight.detach().clone() for name, weight in objects.items()}
    with torch.no_grad():
        before = logits(model, inputs(kind))
        restart(model, seed=3, step=5)
        assert torch.allclose(logits(model, inputs(kind)), before, rtol=0, atol=1e-10)
    for name, layer in adapter_layers(model).items():
        down, up = adapter_weights(layer)
        assert not bool(up.any()) and not torch.equal(down, old[name])
        assert down.detach().abs().max().item() <= 1.000001 / math.sqrt(down.shape[1])
        assert layer.base_layer.weight is objects[name] and not torch.equal(objects[name], weights[name])
        assert down.requires_grad and up.requires_grad and not objects[name].requires_grad
    logits(model, inputs(kind)).square().mean().backward()
    assert all(bool(adapter_weights(layer)[1].grad.any()) for layer in layers.values())


def test_every_reset_draws_other_numbers_and_a_seed_always_the_same() -> None:
    drawn = {}
    for seed, step in ((3, 5), (3, 10), (4, 5)):
        for turn in range(2):
            model = adapted("gpt2")
            torch.manual_seed(turn)
            restart(model, seed, step)
            drawn[seed, step, turn] = [adapter_weights(layer)[0] for layer in adapter_layers(model).values()]
    for seed, step, turn in drawn:
        for other in drawn:
            for one, two in zip(drawn[seed, step, turn], drawn[other], strict=True):
                assert torch.equal(one, two) is ((seed, step) == other[:2])


def test_ranks_add_up_where_lora_keeps_its_own() -> None:
    ranks = {}
    for kind in (LoRA, Jagged):
        model = tiny_gpt2(dtype=torch.float64)
        old = {name: weight.detach().clone() for name, weight in matrices(model).items()}
        Run.fresh(kind, model=model).train(12).finish()
        ranks[kind] = {
            int(torch.linalg.matrix_rank(weight.detach() - old[name], rtol=1e-9))
            for name, weight in matrices(model).items()
        }
    assert ranks == {LoRA: {8}, Jagged: {16}}


@given(
    values=st.lists(st.floats(-4, 4).map(lambda value: round(value, 1)), min_size=1, max_size=30),
    share=st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]),
)
def test_the_smallest_of_the_state_become_zero(values: list[float], share: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(len(values), dtype=torch.float64))
    optimizer = torch.optim.AdamW([parameter])
    first, second = torch.tensor(values, dtype=torch.float64), torch.tensor(values, dtype=torch.float64).square()
    optimizer.state[parameter] = {"step": torch.tensor(7.0), "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
    prune_state(optimizer, parameter, share)
    count = math.floor(share * len(values) + 1e-12)
    limit = sorted(map(abs, values))[count - 1] if count else -1.0
    kept = [value if abs(value) > limit else 0.0 for value in values]
    assert optimizer.state[parameter]["exp_avg"].tolist() == kept
    assert optimizer.state[parameter]["exp_avg_sq"].tolist() == [value * value for value in kept]
    assert optimizer.state[parameter]["step"] == 7


def test_a_share_out_of_range_is_refused_and_no_optimizer_has_no_state() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="share is"):
            prune_state(torch.optim.AdamW([parameter]), parameter, share)
    prune_state(None, parameter, 0.5)
    prune_state(torch.optim.AdamW([parameter]), parameter, 0.5)  # before its first step


def test_the_rate_falls_at_resets_alone_and_comes_back() -> None:
    assert [rewarming(step, 5, 2) for step in range(12)] == [1, 1, 1, 1, 1, 0.5, 1, 1, 1, 1, 0.5, 1]
    assert [rewarming(step, 8, 4) for step in range(8, 13)] == [0.25, 0.5, 0.75, 1, 1]
    assert {rewarming(step, 3, 1) for step in range(9)} == {1}


@pytest.mark.parametrize(
    ("steps", "interval", "warmup"), [(20_000, 5000, 100), (1600, 400, 40), (12, 3, 1), (10, 3, 1), (1, 1, 1)]
)
def test_resets_and_warmup_are_shares_of_the_run(steps: int, interval: int, warmup: int) -> None:
    method = ReLoRA(replace(BUDGET, total_steps=steps, start_step=0, end_step=1, target_size=None))
    assert (method.reset_interval, method.warmup_steps) == (interval, warmup)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 20),
        lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),  # from the last rate
        lambda optimizer: None,
    ],
)
def test_a_step_is_made_with_the_scaled_rate_and_no_schedule_notices(schedule: Any) -> None:
    factors = [1.0, 0.25, 0.5, 1.0, 1.0]
    moved: dict[bool, list[float]] = {}
    for scaled in (True, False):
        parameter = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        optimizer = torch.optim.SGD([parameter], lr=0.5)
        scheduler, rate = schedule(optimizer), ScaledRate()
        for factor in factors:
            if scaled:
                rate.attach(optimizer)
                rate.factor = factor
            before = parameter.item()
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            moved.setdefault(scaled, []).append(before - parameter.item())
            if scheduler is not None:
                scheduler.step()
    assert moved[True] == pytest.approx([step * factor for step, factor in zip(moved[False], factors, strict=True)])
    rate.factor = 0.0
    rate.detach()
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] > 0


def _rates(run: Run, until: int) -> list[float]:
    """Learning rates with which the optimizer really steps; its group's own is always the same."""
    seen: list[float] = []
    for step in range(run.step + 1, until + 1):
        run.method.after_backward(run.state())  # the method's hook comes first
        hook = run.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
        run.train(step)
        hook.remove()
        assert run.optimizer.param_groups[0]["lr"] == 3e-3
    return seen


def test_the_run_has_a_jagged_rate_and_one_reset() -> None:
    run = Run.fresh(Jagged)
    rates = _rates(run, 5)
    layers = adapter_layers(run.model)
    before = {name: adapter_weights(layer)[0].detach().clone() for name, layer in layers.items()}
    rates += _rates(run, 6)
    embedding = run.model.transformer.wte.weight
    for name, layer in layers.items():
        down, up = adapter_weights(layer)
        assert not bool(up.any()) and not torch.allclose(down, before[name], atol=0.05)
        for weight in (down, up):
            state = run.optimizer.state[weight]
            assert state["step"] == 6
            for key in ("exp_avg", "exp_avg_sq"):
                assert 0 < int((state[key] != 0).sum()) <= math.ceil(0.01 * weight.numel())
    for value in (embedding, run.model.transformer.h[0].attn.c_attn.base_layer.bias):
        assert float((run.optimizer.state[value]["exp_avg_sq"] != 0).float().mean()) > 0.8
    rates += _rates(run, 12)
    assert rates == pytest.approx([3e-3] * 6 + [1e-3, 2e-3] + [3e-3] * 4)
    assert any(bool(adapter_weights(layer)[1].any()) for layer in layers.values())  # none at the last step
    run.finish()
    assert run.optimizer._optimizer_step_pre_hooks == {} == run.optimizer._optimizer_step_post_hooks


class Wrapper:
    """Stand-in for accelerate's wrapper: an object that holds the optimizer and passes steps on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()


def test_a_wrapped_optimizer_is_unwrapped() -> None:
    plain, wrapped = Run.fresh(Jagged).train(8), Run.fresh(Jagged)
    wrapped.optimizer = Wrapper(wrapped.optimizer)  # type: ignore[assignment]
    wrapped.train(8)
    assert wrapped.losses == plain.losses
    assert_same_weights(wrapped.model, plain.model)


@pytest.mark.parametrize("stop", [5, 6, 7])
def test_a_run_resumes_before_at_and_behind_a_reset(stop: int, tmp_path: Path) -> None:
    whole = Run.fresh(Jagged).train(12).finish()
    halves = Run.fresh(Jagged).train(stop).resumed(tmp_path).train(12).finish()
    assert halves.losses == whole.losses
    assert_same_weights(halves.model, whole.model)


@pytest.mark.parametrize("target", [None, 0.1])
def test_the_target_is_not_looked_at_and_the_model_is_plain_in_the_end(target: float | None) -> None:
    sizes = (parameters(tiny_gpt2()), parameters(tiny_gpt2(), "blocks"))
    run = Run.fresh(ReLoRA, replace(BUDGET, target_size=target)).train(4)
    assert adapter_parameters(run.model) > 0
    assert run.method.nonzero_parameters(run.model) == sizes
    run.finish()
    assert adapter_parameters(run.model) == 0 and len(ecospa.coupled_pairs(run.model)) == 6
    assert [(entry["step"], entry["parameters"]) for entry in run.method.history] == [(0, sizes[0])]
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_without_steps_nothing_changes() -> None:
    model = build("gpt2")
    method = ReLoRA(replace(BUDGET, total_steps=1, start_step=0, end_step=1, interval=1))
    method.prepare(model)
    logits(model, inputs("gpt2")).square().mean().backward()
    method.after_backward(TrainingState(model, None, 0, 1))
    method.after_step(TrainingState(model, None, 1, 1))
    method.finish(TrainingState(model, None, 1, 1))
    assert_same_weights(model, build("gpt2"))


def test_a_model_with_adapters_is_refused() -> None:
    with pytest.raises(ecospa.UnsupportedModelError, match="holds adapters already"):
        ReLoRA(BUDGET).prepare(adapted("gpt2"))

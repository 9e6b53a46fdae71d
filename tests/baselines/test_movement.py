"""baselines.movement against what really moves, against sums over cut copies, and along the budget's curve."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ecospa
from baselines.method import TrainingState
from baselines.movement import Movement, MovementCurve, movement
from baselines.structure_axes import structure_axes
from baselines.structures import Kept, choose, cut, most_removable, structures
from ecospa.accounting import parameters
from ecospa.schedule import Schedule
from tests.baselines.runs import BUDGET, Run, assert_same_weights, tiny_gpt2, tokens
from tests.model_zoo import build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "bert", "vit", "timm-vit")


def with_gradients(kind: str, seed: int = 0) -> nn.Module:
    """A model of the zoo after one backward pass."""
    model = build(kind)
    logits(model, inputs(kind, seed)).square().mean().backward()
    return model


def without(model: nn.Module, name: str, number: int) -> nn.Module:
    """A copy that has lost one head or channel, gradients too."""
    smaller, found = copy.deepcopy(model), structures(model)
    for one, other in zip(smaller.parameters(), model.parameters(), strict=True):
        one.grad = None if other.grad is None else other.grad.clone()
    stays = torch.tensor([n for n in range({**found.heads, **found.channels}[name]) if n != number])
    cut(smaller, Kept({name: stays}, {}) if name in found.heads else Kept({}, {name: stays}))
    return smaller


def total_product(model: nn.Module) -> float:
    """Sum of w dL/dw over all matrices inside the blocks."""
    names = dict.fromkeys(axis.parameter for pair in ecospa.coupled_pairs(model) for axis in pair.axes)
    matrices = [p for p in map(model.get_parameter, names) if p.ndim > 1]
    return sum(float((p.detach() * p.grad).sum()) for p in matrices if p.grad is not None)


def total_squares(model: nn.Module) -> float:
    """Sum of w^2 over all matrices inside the blocks."""
    names = dict.fromkeys(axis.parameter for pair in ecospa.coupled_pairs(model) for axis in pair.axes)
    return sum(float(p.detach().square().sum()) for p in map(model.get_parameter, names) if p.ndim > 1)


@pytest.mark.parametrize("kind", [*KINDS, "qwen3", "timm-qk-norm"])
def test_the_score_is_the_sum_over_all_matrices_of_a_structure(kind: str) -> None:
    model = with_gradients(kind)
    moved, whole = movement(model, structure_axes(model)), total_product(model)
    found = structures(model)
    assert {name: len(score) for name, score in moved.items()} == {**found.heads, **found.channels}
    for name, score in moved.items():
        for number in (0, len(score) // 2, len(score) - 1):
            by_hand = -(whole - total_product(without(model, name, number)))
            assert float(score[number]) == pytest.approx(by_hand, rel=1e-7, abs=1e-12), (name, number)


def test_a_weight_that_moves_away_from_zero_gets_a_rising_score() -> None:
    """By hand: a channel of weights (2, -3) whose step makes them (2.1, -3.2) rises, its mirror image falls."""
    model: Any = build("gpt2")
    logits(model, inputs("gpt2")).sum().backward()
    for parameter in model.parameters():
        parameter.grad.zero_()
    mlp = model.transformer.h[1].mlp
    with torch.no_grad():
        for channel in (5, 6):
            mlp.c_fc.weight[0, channel], mlp.c_proj.weight[channel, 7] = 2.0, -3.0
        mlp.c_fc.weight.grad[0, 5], mlp.c_proj.weight.grad[5, 7] = -0.1, 0.2  # descent: 2 -> 2.1, -3 -> -3.2
        mlp.c_fc.weight.grad[0, 6], mlp.c_proj.weight.grad[6, 7] = 0.1, -0.2  # descent: 2 -> 1.9, -3 -> -2.8
        mlp.c_fc.bias.grad[7] = 100.0  # biases are not scored
    curve = MovementCurve(BUDGET)
    for _ in range(3):
        curve.after_backward(TrainingState(model, None, 0, 12))
    score = curve.scores["transformer.h.1.mlp.ffn"]
    assert score[5].item() == pytest.approx(3 * (2 * 0.1 + 3 * 0.2))
    assert score[6].item() == pytest.approx(-3 * (2 * 0.1 + 3 * 0.2))
    assert score[7].item() == 0
    assert curve.steps == 3


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_scores_rise_where_a_step_of_descent_makes_weights_larger(kind: str) -> None:
    model = with_gradients(kind)
    moved, rate = movement(model, structure_axes(model)), 1e-7
    after = copy.deepcopy(model)
    with torch.no_grad():
        for one, other in zip(after.parameters(), model.parameters(), strict=True):
            if other.grad is not None:
                one.sub_(rate * other.grad)
    grown = total_squares(after) - total_squares(model)
    for name, score in moved.items():
        for number in (0, len(score) - 1):
            rest = total_squares(without(after, name, number)) - total_squares(without(model, name, number))
            assert float(score[number]) == pytest.approx((grown - rest) / (2 * rate), rel=1e-3, abs=1e-4)


def test_scores_add_up_over_steps_and_stay_with_the_survivors() -> None:
    run = Run.fresh(Movement, replace(BUDGET, start_step=0, interval=4), tiny_gpt2(dtype=torch.float64))
    sums: dict[str, Tensor] = {}
    after_backward = run.method.after_backward

    def recorded(state: TrainingState) -> None:
        for name, value in movement(state.model, structure_axes(state.model)).items():
            sums[name] = sums[name] + value if name in sums else value
        after_backward(state)

    run.method.after_backward = recorded  # type: ignore[method-assign]
    run.train(3)
    dense, curve = copy.deepcopy(run.model), run.method.shrinker
    assert isinstance(curve, MovementCurve)
    run.optimizer.param_groups[0]["lr"] = 0.0
    run.train(4)
    excess = parameters(dense, "blocks") - parameters(run.model, "blocks")
    found = structures(dense)
    heads = {name: sums[name] for name in found.heads}
    channels = {name: sums[name] for name in found.channels}
    goal = Schedule(run.method.budget.config(), parameters(dense, "blocks"), curve._target).goal(4)
    kept = choose(dense, heads, channels, parameters(dense, "blocks") - goal)  # heads fit here, so nothing waits
    assert kept.heads and kept.channels and excess > 0
    by_hand = copy.deepcopy(dense)
    cut(by_hand, kept)
    assert_same_weights(by_hand, run.model)
    for name, score in sums.items():
        numbers = {**kept.heads, **kept.channels}.get(name, torch.arange(len(score)))
        assert torch.equal(curve.scores[name], score[numbers]), name
    for name, score in channels.items():  # nothing that goes scores higher than what stays
        gone = sorted(set(range(len(score))) - set(kept.channels[name].tolist()))
        assert max(score[gone]) <= min(score[kept.channels[name]])


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert"])
@pytest.mark.parametrize("scope", ["blocks", "parameters"])
def test_it_lands_on_the_target_and_never_falls_below_the_curve(kind: str, scope: Any) -> None:
    model = build(kind).float().train()
    whole, blocks = parameters(model, scope), parameters(model, "blocks")
    run = Run.fresh(Movement, replace(BUDGET, target_size=0.6, target_scope=scope, start_step=0), model).train(12)
    history = run.finish().method.history
    schedule = Schedule(run.method.budget.config(), whole, round(0.6 * whole))
    sizes = {entry["step"]: entry["block_parameters" if scope == "blocks" else "parameters"] for entry in history}
    head = max(structures(build(kind)).head_parameters.values())
    assert min(sizes) == 0 and set(sizes) <= {0, 2, 4, 6, 8, 10} and len(sizes) > 2
    for step in (2, 4, 6, 8, 10):  # a step without an entry cut nothing
        size = sizes[max(entry for entry in sizes if entry <= step)]
        assert 0 <= size - schedule.goal(step) < head, step
    assert 0 <= parameters(run.model, scope) - round(0.6 * whole) < 0.01 * blocks
    assert sizes[max(sizes)] == parameters(run.model, scope)


def test_channels_do_not_pay_for_heads_that_did_not_fit() -> None:
    """Many small events, each smaller than a head, end with the heads and channels of a single one."""
    budget = replace(BUDGET, start_step=0, end_step=12, interval=1, curve="linear")
    left = []
    for each in (budget, replace(budget, interval=12)):
        run = Run.fresh(Movement, each, tiny_gpt2(dtype=torch.float64))
        curve = run.method.shrinker
        assert isinstance(curve, MovementCurve)
        run.optimizer.param_groups[0]["lr"] = 0.0
        curve.after_backward = lambda state: None  # type: ignore[method-assign]
        generator = torch.Generator().manual_seed(0)
        for name, axes in structure_axes(run.model).items():
            curve.scores[name] = torch.randn(len(axes[0].positions), generator=generator, dtype=torch.float64)
        curve.steps = 1
        left.append(run.train(12))
    assert_same_weights(left[0].model, left[1].model)
    assert len(left[0].method.history) > 6 and len(left[1].method.history) == 2
    assert min(structures(left[0].model).heads.values()) < 4


def test_what_is_cut_takes_its_optimizer_state_along() -> None:
    run = Run.fresh(Movement).train(12)
    assert parameters(run.model, "blocks") < parameters(tiny_gpt2(), "blocks")
    for parameter in run.model.parameters():
        state = run.optimizer.state[parameter]
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape


@pytest.mark.parametrize("stop", [1, 3, 4, 9, 10, 12])
def test_a_resumed_run_equals_an_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    whole = Run.fresh(Movement).train(12).finish()
    halves = Run.fresh(Movement).train(stop).resumed(tmp_path / "checkpoint").train(12).finish()
    assert halves.losses == whole.losses
    assert halves.method.history == whole.method.history
    assert_same_weights(halves.model, whole.model)
    state = whole.method.state_dict()
    assert halves.method.state_dict() == state == json.loads(json.dumps(state))


@pytest.mark.parametrize("kind", KINDS)
def test_one_gradient_and_one_event_are_enough(kind: str) -> None:
    budget = replace(BUDGET, target_size=0.5, total_steps=1, start_step=0, end_step=1, interval=1)
    model, method = build(kind), Movement(budget)
    whole = parameters(model, "blocks")
    method.prepare(model, None)
    method.build_optimizer(model)
    for seed in (1, 2):
        model.zero_grad()
        logits(model, inputs(kind, seed)).square().mean().backward()
        method.after_backward(TrainingState(model, None, 0, 1))
    method.after_step(TrainingState(model, None, 1, 1))
    method.finish(TrainingState(model, None, 1, 1))
    assert 0 <= parameters(model, "blocks") - round(0.5 * whole) < 0.01 * whole
    assert [entry["step"] for entry in method.history] == [0, 1]
    with torch.no_grad():
        assert bool(logits(model, inputs(kind)).isfinite().all())


def test_nothing_changes_when_nothing_has_to_go() -> None:
    run = Run.fresh(Movement, replace(BUDGET, target_size=1.0)).train(12)
    assert parameters(run.model) == parameters(tiny_gpt2())
    assert [entry["step"] for entry in run.method.history] == [0]


def test_an_unreachable_target_is_refused_and_the_smallest_one_is_reached() -> None:
    whole = parameters(tiny_gpt2(), "blocks")
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value"):
        Movement(replace(BUDGET, target_size=0.01)).prepare(tiny_gpt2(), None)
    smallest = (whole - most_removable(tiny_gpt2())) / whole
    run = Run.fresh(Movement, replace(BUDGET, target_size=smallest)).train(12)
    assert {pair.groups for pair in ecospa.coupled_pairs(run.model)} == {1}
    assert {pair.width for pair in ecospa.coupled_pairs(run.model) if pair.kind == "ffn"} == {1}
    with pytest.raises(ecospa.ConfigError, match="target_size is None"):
        Movement(replace(BUDGET, target_size=None))


def test_a_broken_gradient_is_told_and_not_scored() -> None:
    run = Run.fresh(Movement).train(3)
    before = run.method.state_dict()
    for parameter in run.model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    with pytest.warns(ecospa.SkippedEventWarning, match="step 3: a gradient is NaN or infinite"):
        run.method.after_backward(run.state())
    assert run.method.state_dict() == before


def test_an_event_without_any_gradient_is_told_and_made_up_for() -> None:
    run = Run.fresh(Movement)
    run.step = 10
    with pytest.warns(ecospa.SkippedEventWarning, match="step 10: no gradient"):
        run.method.after_step(run.state())
    assert [entry["step"] for entry in run.method.history] == [0]
    run.train(11)
    whole = parameters(tiny_gpt2(), "blocks")
    assert [entry["step"] for entry in run.method.history] == [0, 11]
    assert 0 <= parameters(run.model, "blocks") - round(0.5 * whole) < 0.01 * whole


def test_a_missing_gradient_is_refused() -> None:
    run = Run.fresh(Movement)
    run.model.transformer.h[0].mlp.c_fc.weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"transformer\.h\.0\.mlp\.c_fc\.weight has no gradient"):
        run.train(1)


def test_another_model_than_the_prepared_or_saved_one_is_refused() -> None:
    method = Movement(BUDGET)
    method.prepare(tiny_gpt2(), None)
    with pytest.raises(ValueError, match="not the one that prepare"):
        method.build_optimizer(tiny_gpt2())
    state = Run.fresh(Movement).train(10).method.state_dict()
    again = Movement(BUDGET)
    again.load_state_dict(state)
    with pytest.raises(ValueError, match="not those of the saved state"):
        again.build_optimizer(tiny_gpt2())


def test_half_precision_is_scored_in_full() -> None:
    model = build("gpt2")
    model(input_ids=tokens(0), labels=tokens(0)).loss.backward()
    half = copy.deepcopy(model).bfloat16()
    for one, other in zip(half.parameters(), model.parameters(), strict=True):
        one.grad = other.grad.bfloat16()
    exact = copy.deepcopy(half).double()
    for one, other in zip(exact.parameters(), half.parameters(), strict=True):
        one.grad = other.grad.double()
    expected, found = (movement(each, structure_axes(each)) for each in (exact, half))
    for name, score in expected.items():
        assert found[name].dtype == torch.float64
        assert torch.allclose(found[name], score, rtol=1e-4, atol=1e-9)

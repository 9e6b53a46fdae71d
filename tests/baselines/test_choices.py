"""Choice of each method, what it cuts: the one thing in which the methods on the curve differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import baselines
import ecospa
from baselines.coupled_sparsity import EcoSpa, EcoSpaOwnPace
from baselines.entries import block_matrices
from baselines.method import TrainingState
from baselines.uncoupled import Uncoupled
from ecospa.accounting import parameters
from ecospa.sparsifier import side_norms
from tests.baselines.runs import BUDGET, Run, adamw, assert_same_weights, largest_step, tiny_gpt2, tokens


def test_ecospa_is_the_library_itself() -> None:
    run = Run.fresh(EcoSpa).train(12)
    model = tiny_gpt2()
    optimizer = adamw(model)
    sparsity = ecospa.CoupledSparsity(model, optimizer, BUDGET.config())
    for step in range(12):
        model(input_ids=tokens(step), labels=tokens(step)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
    assert_same_weights(run.model, model)


def test_own_pace_cuts_by_k_and_theta_and_stops_at_the_target() -> None:
    whole = parameters(tiny_gpt2(), "blocks")
    slow = Run.fresh(EcoSpaOwnPace, replace(BUDGET, interval=1, start_step=0)).train(12).method.history
    shares = [entry["block_parameters"] / whole for entry in slow]
    assert 0.5 < shares[-1] < 0.9  # a dozen events of about 3 % do not reach the target
    fast = replace(BUDGET, interval=1, start_step=0, top_k=1.0, importance_threshold=0.8)
    run = Run.fresh(EcoSpaOwnPace, fast).train(12)
    kept = parameters(run.model, "blocks")
    assert 0 <= kept - round(0.5 * whole) < largest_step(tiny_gpt2(), 2)
    assert run.method.history[-1]["step"] < 10  # not the end step but K and theta decide when


def test_each_side_of_an_uncoupled_pair_keeps_its_own_best_indices() -> None:
    run = Run.fresh(Uncoupled, replace(BUDGET, end_step=4, top_k=1.0))
    run.train(3)
    model, method = run.model, run.method
    seen: dict[tuple[str, str], torch.Tensor] = {}
    original = method._remove_others  # type: ignore[attr-defined]

    def spy(model: Any, pair: Any, side: str, kept: torch.Tensor) -> None:
        norms = side_norms(model, pair, side)
        best = [sorted(row.topk(kept.shape[1]).indices.tolist()) for row in norms]
        assert kept.tolist() == best
        seen[pair.name, side] = kept
        original(model, pair, side, kept)

    method._remove_others = spy  # type: ignore[attr-defined]
    run.train(4)
    widths = method.history[-1]["widths"]
    differing = 0
    for pair in ecospa.coupled_pairs(model):
        left, right = (method.live_units(model, pair, side) for side in ("left", "right"))  # type: ignore[attr-defined]
        assert torch.equal(left, seen[pair.name, "left"]) and torch.equal(right, seen[pair.name, "right"])
        assert left.shape == right.shape == (pair.groups, widths[pair.name])
        differing += not torch.equal(left, right)
    assert differing == 6  # every pair of the two blocks
    assert parameters(model, "blocks") - method.masks.count == method.history[-1]["block_parameters"]  # type: ignore[attr-defined]


def test_what_an_uncoupled_side_has_lost_never_returns() -> None:
    run = Run.fresh(Uncoupled)
    before: dict[tuple[str, str], torch.Tensor] = {}
    for step in (4, 6, 8, 10):
        run.train(step)
        for pair in ecospa.coupled_pairs(run.model):
            for side in ("left", "right"):
                live = run.method.live_units(run.model, pair, side)  # type: ignore[attr-defined]
                for row, earlier in zip(live, before.get((pair.name, side), live), strict=True):
                    assert set(row.tolist()) <= set(earlier.tolist())
                before[pair.name, side] = live


def test_uncoupled_widths_are_chosen_like_those_of_ecospa() -> None:
    ours, theirs = (Run.fresh(kind).train(4).method.history[-1]["widths"] for kind in (EcoSpa, Uncoupled))
    assert ours.keys() == theirs.keys()
    narrowed = [{name for name, width in widths.items() if width < (8 if "attn" in name else 128)}
                for widths in (ours, theirs)]  # fmt: skip
    assert narrowed[0] == narrowed[1] != set()  # the same gradients name the same pairs


def watch_importances(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The importances that a sparsifier is given at every event from now on."""
    seen: list[dict[str, float]] = []
    original = ecospa.CoupledSparsifier.plan

    def plan(self: Any, model: Any, importances: dict[str, float], *more: Any, **options: Any) -> Any:
        seen.append(importances)
        return original(self, model, importances, *more, **options)

    monkeypatch.setattr(ecospa.CoupledSparsifier, "plan", plan)
    return seen


def test_importance_of_an_uncoupled_pair_is_a_mean_over_live_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.fresh(Uncoupled, replace(BUDGET, top_k=1.0)).train(4)
    seen = watch_importances(monkeypatch)
    for parameter in run.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    run.method.masks.zero_state(run.model, run.optimizer)  # type: ignore[attr-defined]
    live = [run.method.live_units(run.model, pair, side)[0]  # type: ignore[attr-defined]
            for pair in ecospa.coupled_pairs(run.model)[2:3] for side in ("left", "right")]  # fmt: skip
    mlp = run.model.transformer.h[0].mlp
    squares = [mlp.c_fc.weight.grad[:, live[0]].square(), mlp.c_proj.weight.grad[live[1]].square()]
    run.method.after_backward(run.state())
    run.step = 6
    run.method.after_step(run.state())
    assert len(live[0]) < 128
    assert seen[0]["transformer.h.0.mlp.ffn"] == pytest.approx(float(sum(s.mean() for s in squares) / 2), rel=1e-5)


def test_random_pairs_draw_anew_at_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.fresh(baselines.load("random_pairs"))
    seen = watch_importances(monkeypatch)
    run.train(6)
    assert len(seen) == 2 and seen[0].keys() == seen[1].keys()
    assert all(seen[0][name] != seen[1][name] for name in seen[0])


def test_gradients_before_the_start_step_do_not_count() -> None:
    run = Run.fresh(Uncoupled).train(3)
    assert run.method.shrinker._estimator.steps == 1  # type: ignore[union-attr]


def test_uncoupled_importance_follows_one_matrix() -> None:
    model = tiny_gpt2()
    pair = next(pair for pair in ecospa.coupled_pairs(model) if pair.name == "transformer.h.1.mlp.ffn")
    method = baselines.load("uncoupled_importance")(replace(BUDGET, end_step=3, interval=1, target_size=0.95))
    method.prepare(model, None)
    state = TrainingState(model, adamw(model), 2, 12)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.get_parameter("transformer.h.1.mlp.c_fc.weight").grad.mul_(0.01)  # alone unimportant, its partner is not
    model.get_parameter("transformer.h.1.mlp.c_proj.weight").grad.mul_(100)
    best = side_norms(model, pair, "left")[0].argsort(descending=True)
    left = model.get_parameter("transformer.h.1.mlp.c_fc.weight").detach().clone()
    right = model.get_parameter("transformer.h.1.mlp.c_proj.weight").detach().clone()
    method.after_backward(state)
    state.step = 3
    method.after_step(state)
    width = method.history[-1]["widths"][pair.name]
    kept = best[:width].sort().values
    assert width < 128 and method.history[-1]["widths"]["transformer.h.0.mlp.ffn"] == 128
    assert torch.equal(model.get_parameter("transformer.h.1.mlp.c_fc.weight").detach(), left[:, kept])
    assert torch.equal(model.get_parameter("transformer.h.1.mlp.c_proj.weight").detach(), right[kept])


def test_random_pairs_depend_on_the_seed_alone() -> None:
    kind = baselines.load("random_pairs")
    widths = [Run.fresh(kind, replace(BUDGET, seed=seed)).train(4).method.history[-1]["widths"] for seed in (1, 1, 2)]
    assert widths[0] == widths[1] != widths[2]
    model = tiny_gpt2()
    first = model.transformer.h[0].mlp.c_fc.weight.detach().norm(dim=0)
    run = Run.fresh(kind, replace(BUDGET, top_k=1.0, end_step=3, interval=1), model)
    run.method.after_step(TrainingState(model, run.optimizer, 3, 12))
    kept = model.transformer.h[0].mlp.c_fc.weight.detach().norm(dim=0)
    best = first.sort(descending=True).values[: len(kept)]
    assert len(kept) < len(first) and set(kept.tolist()) < set(first.tolist())
    assert set(kept.tolist()) != set(best.tolist())


def test_magnitude_takes_the_same_share_of_every_matrix() -> None:
    run = Run.fresh(baselines.load("magnitude")).train(3)
    before = {name: weight.detach().abs().clone() for name, weight in block_matrices(run.model).items()}
    run.train(12)
    removed = run.method.masks.removed  # type: ignore[attr-defined]
    assert list(removed) == list(before) and len(before) == 8
    shares = [float(mask.double().mean()) for mask in removed.values()]
    assert max(shares) - min(shares) < 1e-3
    whole = parameters(run.model, "blocks")
    assert run.method.masks.count == whole - round(0.5 * whole)  # type: ignore[attr-defined]
    assert all(before[name][mask].mean() < before[name][~mask].mean() for name, mask in removed.items())


def test_a_live_weight_of_value_zero_is_not_taken_for_a_removed_one() -> None:
    run = Run.fresh(baselines.load("magnitude")).train(5)
    with torch.no_grad():
        run.model.transformer.h[0].mlp.c_fc.weight[-8:] = 0
    run.step = 6
    run.method.after_step(run.state())
    whole = parameters(run.model, "blocks")
    goal = ecospa.schedule.Schedule(BUDGET.config(), whole, round(0.5 * whole)).goal(6)
    assert run.method.masks.count == whole - goal  # type: ignore[attr-defined]


def test_small_dense_is_a_fresh_uniform_model_of_the_target_size() -> None:
    model = tiny_gpt2()
    original = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    small = baselines.load("small_dense")(BUDGET).prepare(model, None)
    assert small is not None and torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items())
    assert not torch.isin(small.transformer.wte.weight, model.transformer.wte.weight).any()
    shares = [pair.width / (8 if pair.groups == 4 else 128) for pair in ecospa.coupled_pairs(small)]
    assert max(shares) - min(shares) <= 2 / 8  # one width step of a head
    assert small.training and small.dtype == model.dtype
    other = baselines.load("small_dense")(replace(BUDGET, seed=4)).prepare(model, None)
    assert other is not None and not torch.equal(small.transformer.wte.weight, other.transformer.wte.weight)


def test_small_dense_needs_a_model_that_can_be_built_anew() -> None:
    inner = torch.nn.Sequential(tiny_gpt2())
    with pytest.raises(ecospa.ConfigError, match="transformers"):
        baselines.load("small_dense")(BUDGET).prepare(inner, None)

"""Contract of every method: it trains, lands on its target, repeats itself, and resumes as if never interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import baselines
import ecospa
from baselines.method import TrainingMethod, architecture
from ecospa.accounting import parameters
from tests.baselines.runs import (
    BUDGET,
    CALIBRATION,
    Run,
    assert_same_weights,
    finished,
    largest_step,
    tiny_gpt2,
    tokens,
)
from tests.model_zoo import build

NAMES = sorted(name for name, method in baselines.methods().items() if "gpt2" in method.architectures)
"""Of methods that a language model can be given to; the others have the same tests on images in their own files."""
ONE_SHOT = [name for name in NAMES if baselines.load(name).stage == "one-shot"]
ON_THE_CURVE = ("ecospa", "uncoupled", "uncoupled_importance", "random_pairs", "magnitude")
MASKED = ("uncoupled", "magnitude")
AT_TARGET = (*ON_THE_CURVE, "small_dense")


def test_the_methods_of_the_first_comparison_are_there() -> None:
    assert {*AT_TARGET, "ecospa_own_pace", "dense"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_keeps_a_history(name: str) -> None:
    run = finished(name)
    history = run.method.history
    assert all(torch.isfinite(torch.tensor(run.losses)))
    assert sum(run.losses[-3:]) < sum(run.losses[:3])
    assert [set(entry) for entry in history] == [{"step", "parameters", "block_parameters", "widths"}] * len(history)
    assert history[0]["step"] == 0
    assert [entry["step"] for entry in history] == sorted({entry["step"] for entry in history})
    assert (history[-1]["parameters"], history[-1]["block_parameters"]) == run.method.nonzero_parameters(run.model)
    assert json.loads(json.dumps(history)) == history


@pytest.mark.parametrize("name", AT_TARGET)
def test_it_lands_on_the_target(name: str) -> None:
    whole = tiny_gpt2()
    target = round(0.5 * parameters(whole, "blocks"))
    run = finished(name)
    blocks = run.method.nonzero_parameters(run.model)[1]
    assert target <= blocks < target + largest_step(whole, 2)
    outside = parameters(whole) - parameters(whole, "blocks")
    assert run.method.nonzero_parameters(run.model)[0] == blocks + outside


@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_one_shot_method_cuts_at_the_end_alone(name: str) -> None:
    run = Run.fresh(baselines.load(name)).train(12)
    whole = parameters(tiny_gpt2(), "blocks")
    assert run.method.nonzero_parameters(run.model)[1] == whole
    blocks = run.finish().method.nonzero_parameters(run.model)[1]
    assert 0 <= blocks - round(run.method.budget.target_size * whole) <= 0.01 * whole
    run.finish()  # a second call changes nothing
    assert run.method.nonzero_parameters(run.model)[1] == blocks


@pytest.mark.parametrize("name", [name for name in NAMES if baselines.load(name).needs_calibration])
def test_missing_data_is_refused(name: str) -> None:
    for nothing in (None, [], "text", {"input_ids": tokens(0)}, [tokens(0)]):
        with pytest.raises(ecospa.ConfigError, match=f"{name}: calibration"):
            baselines.load(name)(BUDGET).prepare(tiny_gpt2(), nothing)


@pytest.mark.parametrize("name", ONE_SHOT)
@pytest.mark.parametrize("target", [0, 1.5, None])
def test_a_senseless_target_is_refused(name: str, target: float | None) -> None:
    with pytest.raises(ecospa.ConfigError, match="target_size"):
        baselines.load(name)(replace(BUDGET, target_size=target))


@pytest.mark.parametrize("name", [name for name in AT_TARGET if name not in MASKED])
def test_what_is_cut_is_really_gone(name: str) -> None:
    run = finished(name)
    assert run.method.nonzero_parameters(run.model) == (parameters(run.model), parameters(run.model, "blocks"))
    assert {pair.name: pair.width for pair in ecospa.coupled_pairs(run.model)} == run.method.history[-1]["widths"]
    assert all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in run.model.parameters())


@pytest.mark.parametrize("name", MASKED)
def test_what_is_masked_keeps_its_shape(name: str) -> None:
    assert parameters(finished(name).model) == parameters(tiny_gpt2())


def test_all_have_the_same_size_at_the_same_step() -> None:
    curves = {name: finished(name).method.history for name in ON_THE_CURVE}
    slack = largest_step(tiny_gpt2(), 2)
    for name, history in curves.items():
        assert [entry["step"] for entry in history] == [0, 4, 6, 8, 10], name
        for entry, of_ecospa in zip(history, curves["ecospa"], strict=True):
            assert abs(entry["block_parameters"] - of_ecospa["block_parameters"]) < slack, (name, entry["step"])


@pytest.mark.parametrize("name", ON_THE_CURVE)
def test_it_never_falls_below_the_curve(name: str) -> None:
    budget = replace(BUDGET, curve="linear", target_scope="parameters", target_size=0.6)
    history = Run.fresh(baselines.load(name), budget).train(12).method.history
    schedule = ecospa.schedule.Schedule(
        budget.config(), history[0]["parameters"], round(0.6 * history[0]["parameters"])
    )
    assert len(history) > 3
    assert all(entry["parameters"] >= schedule.goal(entry["step"]) for entry in history)


@pytest.mark.parametrize("name", NAMES)
def test_it_repeats_itself(name: str) -> None:
    first, second = finished(name), Run.fresh(baselines.load(name)).train(12).finish()
    assert first.losses == second.losses
    assert first.method.history == second.method.history
    assert_same_weights(first.model, second.model)


@pytest.mark.parametrize(
    ("name", "stop"), [*((name, 7) for name in NAMES), ("ecospa", 1), ("uncoupled", 1), ("uncoupled", 10)]
)
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, stop: int, tmp_path: Path) -> None:
    whole = finished(name)
    halves = Run.fresh(baselines.load(name)).train(stop).resumed(tmp_path / "checkpoint").train(12).finish()
    assert halves.losses == whole.losses
    assert halves.method.history == whole.method.history
    assert halves.method.state_dict() == whole.method.state_dict()
    assert halves.method.nonzero_parameters(halves.model) == whole.method.nonzero_parameters(whole.model)
    assert_same_weights(halves.model, whole.model)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_can_be_saved_again_before_the_first_hook(name: str, tmp_path: Path) -> None:
    run = Run.fresh(baselines.load(name)).train(7)
    state = json.loads(json.dumps(run.method.state_dict()))
    method = baselines.load(name)(run.method.budget)
    method.load_state_dict(state)
    assert json.loads(json.dumps(method.state_dict())) == state
    assert method.history == run.method.history
    assert method.nonzero_parameters(run.model) == run.method.nonzero_parameters(run.model)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_saves_and_loads(name: str, tmp_path: Path) -> None:
    run = finished(name)
    run.method.save(run.model, tmp_path)
    loaded = run.method.load(tmp_path, tiny_gpt2())
    assert_same_weights(loaded, run.model)
    with torch.no_grad():
        assert torch.equal(loaded(tokens(99)).logits, run.model(tokens(99)).logits)


@pytest.mark.parametrize("name", [*AT_TARGET, "ecospa_own_pace"])
def test_an_unreachable_target_is_refused_before_the_first_step(name: str) -> None:
    method = baselines.load(name)(replace(BUDGET, target_size=0.01))
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value"):
        method.prepare(tiny_gpt2(), None)


@pytest.mark.parametrize("name", [*AT_TARGET, "ecospa_own_pace"])
def test_a_method_that_shrinks_needs_a_target(name: str) -> None:
    with pytest.raises(ecospa.ConfigError, match="target_size is None"):
        baselines.load(name)(replace(BUDGET, target_size=None))


@pytest.mark.parametrize("name", ["uncoupled", "uncoupled_importance"])
def test_broken_gradients_cut_nothing(name: str) -> None:
    run = Run.fresh(baselines.load(name)).train(3)
    for parameter in run.model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    run.method.after_backward(run.state())
    run.step = 4
    with pytest.warns(ecospa.SkippedEventWarning, match="step 4"):
        run.method.after_step(run.state())
    assert [entry["step"] for entry in run.method.history] == [0]


@pytest.mark.parametrize("name", ["uncoupled", "random_pairs"])
def test_another_model_than_the_prepared_one_is_refused(name: str) -> None:
    method: TrainingMethod = baselines.load(name)(BUDGET)
    method.prepare(tiny_gpt2(), None)
    with pytest.raises(ValueError, match="not the one that prepare"):
        Run(method, tiny_gpt2())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("llama-gqa", name) for name in NAMES),
        *(("bert", name) for name in NAMES if "bert" in baselines.load(name).architectures),
    ],
)
def test_it_works_on_other_architectures(name: str, kind: str) -> None:
    model = build(kind).float().train()
    run = Run.fresh(baselines.load(name), replace(BUDGET, target_size=0.6), model).train(12)
    whole = parameters(build(kind), "blocks")
    kept = run.method.nonzero_parameters(run.model)[1]
    assert torch.isfinite(torch.tensor(run.losses)).all()
    if name in AT_TARGET:
        assert 0 <= kept - round(0.6 * whole) < largest_step(build(kind), 2)


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "vit", "timm-vit"])
def test_methods_refuse_what_they_are_not_defined_for(kind: str) -> None:
    refusing = [
        name for name, method in baselines.methods().items() if architecture(build(kind)) not in method.architectures
    ]
    for name in refusing:
        with pytest.raises(ecospa.UnsupportedModelError, match=f"{name} is not defined for the"):
            baselines.load(name)(BUDGET).prepare(build(kind), CALIBRATION)
    assert {"gpt2": "svite", "bert": "slicegpt", "vit": "slicegpt", "timm-vit": "slicegpt", "llama-gqa": "svite"}[
        kind
    ] in refusing


@pytest.mark.parametrize("name", [name for name in NAMES if not baselines.load(name).reads_gradients])
def test_who_reads_no_gradients_needs_none(name: str) -> None:
    """Without any gradient to see, an event cuts the same."""
    states = []
    for seen in (True, False):
        budget = replace(BUDGET, total_steps=1, start_step=0, end_step=1, interval=1)
        run = Run.fresh(baselines.load(name), budget)
        if seen:
            run.model(input_ids=tokens(0), labels=tokens(0)).loss.backward()
            run.method.after_backward(run.state())
        run.step = 1
        run.method.after_step(run.state())
        run.finish()
        states.append(run.model)
    assert_same_weights(*states)

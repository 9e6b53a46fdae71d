"""Open choices of the method: each changes what it says and nothing else, on models of two families."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch

import ecospa
from ecospa.scaled_importance import FirstOrderTaylor, FisherByKind, WeightNormFisher
from ecospa.unit_effects import UnitEffects
from ecospa.width_rule import WidthRule
from tests.ecospa.loops import make, step
from tests.ecospa.trainer_runs import CONFIG, same, trainer_of, weights
from tests.model_zoo import build, inputs, logits, zeroed

SWITCHES: dict[str, dict[str, Any]] = {
    "weight_norm": {"importance_scale": "weight_norm"},
    "first_order": {"importance_scale": "first_order"},
    "by_kind": {"importance_scale": "kind"},
    "within_kind": {"select_within": "kind"},
    "min_share": {"min_share": 0.4},
    "units": {"ranking": "units"},
}
ESTIMATORS = {"weight_norm": WeightNormFisher, "first_order": FirstOrderTaylor, "by_kind": FisherByKind,
              "units": UnitEffects}  # fmt: skip
ON_CURVE = {"pace": "curve", "end_step": 4, "target_size": 0.5, "target_scope": "blocks", "width_multiple": 2}


def measured(kind: str, **options: Any) -> tuple[Any, ecospa.CoupledSparsity]:
    """A float64 model with one step of gradients measured, by the configuration's own estimator."""
    model = build(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparsity = ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(**(ON_CURVE | options)))
    backward(model, kind)
    sparsity.after_backward()
    return model, sparsity


def backward(model: Any, kind: str, seed: int = 1) -> None:
    model.zero_grad()
    logits(model, inputs(kind, seed)).square().mean().backward()


def plan_of(model: Any, sparsity: ecospa.CoupledSparsity, share: float = 0.5) -> ecospa.SparsityPlan:
    """The plan of an event that comes down to a share of the blocks."""
    effects = sparsity.estimator.effects(model, ecospa.coupled_pairs(model)) if sparsity._scorer else None  # type: ignore[attr-defined]
    goal = round(share * ecospa.accounting.parameters(model, "blocks"))
    plan = sparsity.sparsifier.plan(model, sparsity.estimator.importances(), goal, effects)
    assert plan is not None
    return plan


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
@pytest.mark.parametrize("name", SWITCHES)
@torch.no_grad()
def test_a_cut_equals_the_zeroed_model(name: str, kind: str) -> None:
    with torch.enable_grad():
        model, sparsity = measured(kind, **SWITCHES[name])
    plan = plan_of(model, sparsity)
    reference = zeroed(model, plan)
    ecospa.apply_plan(model, plan)
    assert (logits(model, inputs(kind)) - logits(reference, inputs(kind))).abs().max() <= 1e-10
    assert any(width < pair.width for width, pair in zip(plan.widths_after().values(), ecospa.coupled_pairs(reference),
                                                         strict=True))  # fmt: skip


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_configuration_names_its_estimator(name: str) -> None:
    assert type(measured("gpt2", **SWITCHES[name])[1].estimator) is ESTIMATORS[name]


def test_the_scale_of_a_matrix_changes_fisher_and_not_fisher_by_weight_norm() -> None:
    """Twice the values and half the output weights compute the same; the rest of the model sees no difference."""
    found = []
    for factor in (1.0, 4.0):
        model = build("gpt2")
        with torch.no_grad():
            for layer in model.transformer.h[:1]:
                layer.attn.c_attn.weight[:, 64:] *= factor
                layer.attn.c_attn.bias[64:] *= factor
                layer.attn.c_proj.weight /= factor
        backward(model, "gpt2")
        pairs = ecospa.coupled_pairs(model)
        both = [kind(model, pairs) for kind in (ecospa.CoupledEstimator, WeightNormFisher, FirstOrderTaylor)]
        for estimator in both:
            estimator.update()
        found.append([estimator.importances() for estimator in both])
    (fisher, scaled, taylor), (fisher_after, scaled_after, taylor_after) = found
    name = "transformer.h.0.attn.vo"
    assert fisher_after[name] > 4 * fisher[name]
    assert scaled_after == pytest.approx(scaled, rel=1e-9) and taylor_after == pytest.approx(taylor, rel=1e-9)


def test_weight_norm_is_the_definition() -> None:
    model, sparsity = measured("llama-gqa", importance_scale="weight_norm")
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp

    def of(*modules: Any) -> float:
        return float(
            sum(m.weight.grad.square().mean() * m.weight.detach().square().mean() for m in modules) / len(modules)
        )

    found = sparsity.estimator.importances()
    assert found["model.layers.0.self_attn.qk"] == pytest.approx(of(attention.q_proj, attention.k_proj), rel=1e-10)
    assert found["model.layers.0.mlp.ffn"] == pytest.approx(of(mlp.gate_proj, mlp.up_proj, mlp.down_proj), rel=1e-10)


def test_by_kind_every_kind_has_the_mean_one_and_its_own_order() -> None:
    model, sparsity = measured("gpt2", importance_scale="kind")
    plain = measured("gpt2")[1].estimator.importances()
    found = sparsity.estimator.importances()
    pairs = ecospa.coupled_pairs(model)
    for kind in ecospa.PairKind:
        names = [pair.name for pair in pairs if pair.kind is kind]
        assert sum(found[name] for name in names) / len(names) == pytest.approx(1)
        assert sorted(names, key=found.__getitem__) == sorted(names, key=plain.__getitem__)


def test_within_kinds_an_event_cuts_pairs_of_every_kind() -> None:
    config = {"pace": "paper", "end_step": None, "target_size": 0.2, "importance_threshold": 0.6}
    for within, expected in (("all", 2), ("kind", 3)):
        model, sparsity = measured("gpt2", select_within=within, **config)
        importances = {pair.name: float(pair.kind is not ecospa.PairKind.QK) for pair in ecospa.coupled_pairs(model)}
        plan = sparsity.sparsifier.plan(model, importances)
        assert plan is not None
        cut = [pair.kind for pair in ecospa.coupled_pairs(model) if plan.widths_after()[pair.name] < pair.width]
        assert len(cut) == expected and (set(cut) == {ecospa.PairKind.QK}) == (within == "all")


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_no_pair_ends_below_its_share(kind: str) -> None:
    model, sparsity = measured(kind, min_share=0.3)
    pairs = ecospa.coupled_pairs(model)
    least = measured(kind)
    bare = plan_of(*least).widths_after()
    assert any(bare[pair.name] < 0.3 * pair.width for pair in pairs)  # or the floor has nothing to do
    ecospa.apply_plan(model, plan_of(model, sparsity))
    assert 0.5 <= sparsity.sparsifier.size(model) / sparsity.sparsifier.full_size < 0.55
    dense = {pair.name: pair.width for pair in pairs}
    assert all(pair.width >= 0.3 * dense[pair.name] for pair in ecospa.coupled_pairs(model))
    again = ecospa.CoupledSparsifier(model, ecospa.EcoSpaConfig(target_size=0.4, min_share=0.3, width_multiple=2,
                                                               target_scope="blocks"))  # fmt: skip
    plan = again.plan(model, dict.fromkeys(dense, 1.0), again.target_size)
    assert plan is not None  # the share is one of the dense width, also of a model that was cut before
    assert all(width >= 0.3 * dense[name] for name, width in plan.widths_after().items())


def test_a_share_that_puts_the_target_out_of_reach_is_named() -> None:
    with pytest.raises(ecospa.ConfigError, match=r"smallest reachable value is 0\.[67].*min_share.*lower.*min_share"):
        measured("gpt2", min_share=0.7)
    with pytest.raises(ecospa.ConfigError, match="min_share"):
        ecospa.plan_shrink(build("gpt2"), 0.5, target_scope="blocks", width_multiple=2, min_share=0.7)
    with pytest.raises(ecospa.ConfigError) as plain:
        measured("gpt2", target_size=0.001)
    assert "min_share" not in str(plain.value)


def unit_entries(model: Any, axes: Any, group: int, unit: int, pair: Any) -> float:
    """Sum of W * dL/dW over the entries of one unit on one side, position by position."""
    total = 0.0
    for axis in axes:
        parameter = model.get_parameter(axis.parameter)
        product = parameter.detach() * parameter.grad
        for part in range(pair.unit):
            for position in axis.index[group, unit + part * pair.units].tolist():
                total += float(product.select(axis.axis, position).sum())
    return total


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "llama-bias-tied", "qwen3"])
def test_effects_are_the_definition(kind: str) -> None:
    model = build(kind)
    pairs = ecospa.coupled_pairs(model)
    estimator = UnitEffects(model, pairs)
    expected: dict[str, Any] = {pair.name: torch.zeros(pair.groups, pair.units, dtype=torch.float64) for pair in pairs}
    for seed in (1, 2):
        backward(model, kind, seed)
        estimator.update()
        for pair in pairs:
            for group in range(pair.groups):
                for unit in range(pair.units):
                    sides = [unit_entries(model, axes, group, unit, pair) for axes in (pair.left, pair.right)]
                    expected[pair.name][group, unit] += sum(map(abs, sides)) / 4
                    if pair.kind is not ecospa.PairKind.FFN and kind != "qwen3":  # no norm between the two matrices
                        assert sides[0] == pytest.approx(sides[1], rel=1e-6, abs=1e-12)
    found = estimator.effects(model, pairs)
    assert all(torch.allclose(found[name], expected[name], rtol=1e-9, atol=1e-15) for name in expected)
    means = {name: float(value.mean()) for name, value in found.items()}
    assert estimator.importances() == pytest.approx(means)


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
@pytest.mark.parametrize("tied", [False, True])
def test_units_keep_the_best_of_every_head_and_land(kind: str, tied: bool) -> None:
    model, sparsity = measured(kind, ranking="units", width_multiple=WidthRule(2, 2, 2, tied))
    pairs = ecospa.coupled_pairs(model)
    effects = sparsity.estimator.effects(model, pairs)  # type: ignore[attr-defined]
    plan = plan_of(model, sparsity)
    for pair in pairs:
        kept = plan.kept.get(pair.name)
        if kept is None:
            continue
        units = kept.shape[1] // pair.unit
        best = effects[pair.name].topk(units, dim=1).indices.sort(dim=1).values
        assert torch.equal(kept[:, :units], best)
    if tied:
        widths = plan.widths_after()
        assert all(widths[p.name] == widths[p.name[:-2] + "vo"] for p in pairs if p.kind is ecospa.PairKind.QK)
    ecospa.apply_plan(model, plan)
    assert sparsity.sparsifier.landed(model) and sparsity.sparsifier.size(model) >= sparsity.sparsifier.target_size


@pytest.mark.parametrize("name", SWITCHES)
def test_a_run_ends_at_its_target_and_resumes_bitwise(name: str) -> None:
    def run(stop: int) -> Any:
        model, optimizer, sparsity = make(kind="llama-gqa", interval=3, end_step=9, **SWITCHES[name])
        for _ in range(stop):
            step(model, optimizer, sparsity)
        return model, sparsity

    whole, ended = run(11)
    assert ended.reached and len(ended.history) > 2
    half, sparsity = run(5)  # between two events: a window is half full
    state = json.loads(json.dumps(sparsity.state_dict()))
    assert state["estimator"]["steps"] == 2
    sparsity.release()
    optimizer = torch.optim.SGD(half.parameters(), lr=0.01)
    again = ecospa.CoupledSparsity(half, optimizer, sparsity.config, resume=state)
    for _ in range(6):
        step(half, optimizer, again)
    assert same(list(half.state_dict().values()), list(whole.state_dict().values()))
    assert [event.widths for event in again.history] == [event.widths for event in ended.history]


@pytest.mark.parametrize("name", ["by_kind", "min_share", "units"])
def test_a_trainer_takes_them_and_resumes(name: str, tmp_path: Any) -> None:
    config = dataclasses.replace(CONFIG, **SWITCHES[name])
    whole = trainer_of(tmp_path, config=config)
    whole.train()
    assert whole.ecospa.sparsity.reached
    again = trainer_of(tmp_path, config=config)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert same(weights(again), weights(whole))


def test_one_shot_plans_take_them() -> None:
    model, sparsity = measured("llama-gqa", ranking="units")
    pairs = ecospa.coupled_pairs(model)
    effects = sparsity.estimator.effects(model, pairs)  # type: ignore[attr-defined]
    plan = ecospa.plan_shrink(model, 0.5, target_scope="blocks", width_multiple=2, ranking="units", scores=effects)
    assert plan.widths_after() == plan_of(model, sparsity).widths_after()
    with pytest.raises(ecospa.ConfigError, match="scores is None and ranking is 'units'"):
        ecospa.plan_shrink(model, 0.5, target_scope="blocks", width_multiple=2, ranking="units")
    importances = {pair.name: float(pair.kind is not ecospa.PairKind.QK) for pair in pairs}
    kinds = ecospa.plan_shrink(
        model, 0.8, target_scope="blocks", width_multiple=2, select_within="kind", top_k=0.3, importances=importances
    )
    assert {pair.kind for pair in pairs if kinds.widths_after()[pair.name] < pair.width} == set(ecospa.PairKind)


def test_units_that_were_not_measured_go_last_and_zero_gradients_cut_nothing() -> None:
    model = build("gpt2")
    pairs = ecospa.coupled_pairs(model)
    estimator = UnitEffects(model, pairs[1:])
    with pytest.raises(RuntimeError, match="no coupled matrix has a gradient"):
        estimator.update()
    with pytest.raises(RuntimeError, match="no gradient was seen"):
        estimator.effects(model, pairs)
    backward(model, "gpt2")
    estimator.update()
    effects = estimator.effects(model, pairs)
    assert bool((effects[pairs[0].name] == max(float(effects[pair.name].max()) for pair in pairs[1:])).all())
    model, optimizer, sparsity = make(ranking="units")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sparsity.after_backward()
    optimizer.step()
    with pytest.warns(ecospa.SkippedEventWarning, match="exactly zero"):
        sparsity.after_step()


def test_a_window_is_taken_back_and_another_models_is_refused() -> None:
    model, sparsity = measured("gpt2", ranking="units")
    estimator = sparsity.estimator
    before, mark = copy.deepcopy(estimator.state_dict()), estimator.mark()
    backward(model, "gpt2", 2)
    estimator.update()
    assert estimator.state_dict() != before
    for _ in range(2):
        estimator.rewind(mark)
        assert estimator.state_dict() == before
        estimator.update()
    other = build("llama-gqa")
    with pytest.raises(ValueError, match="effects of other units"):
        UnitEffects(other, ecospa.coupled_pairs(other)).load_state_dict(before)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"importance_scale": "size"},
            "importance_scale is 'size'; choose one of none, weight_norm, first_order, kind",
        ),
        ({"select_within": "layer"}, "select_within is 'layer'; choose one of all, kind"),
        ({"ranking": "rows"}, "ranking is 'rows'; choose one of pairs, units"),
        ({"min_share": 1.0}, r"min_share is 1.0; it must be a share in \[0, 1\); 0 leaves"),
        ({"min_share": -0.1}, "min_share is -0.1"),
        ({"min_share": True}, "min_share is True"),
        ({"importance_scale": "first_order", "estimator": "adam"}, "'first_order' and estimator is 'adam'"),
        ({"ranking": "units", "pace": "paper"}, "ranking is 'units' and pace is 'paper'.*use pace='curve'"),
        ({"ranking": "units", "importance_scale": "kind"}, "importance_scale is 'kind', which ranking='units' does"),
        ({"ranking": "units", "select_within": "kind"}, "select_within is 'kind', which ranking='units' does"),
        ({"ranking": "units", "granularity": "head"}, "granularity is 'head', which ranking='units' does"),
        ({"ranking": "units", "estimator": "adam"}, "estimator is 'adam', which ranking='units' does"),
    ],
)
def test_values_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ecospa.ConfigError, match=message):
        ecospa.EcoSpaConfig(**({"pace": "curve", "end_step": 4} | fields))


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"importance_scale": "kind"}, {"estimator": ecospa.CoupledEstimator}, "config.importance_scale is 'kind' and"),
        ({"ranking": "units"}, {"estimator": ecospa.CoupledEstimator}, "config.ranking is 'units'"),
        ({"ranking": "units"}, {"scorer": lambda model, pairs: {}}, "config.ranking is 'units'"),
    ],
)
def test_two_measures_at_once_are_refused(options: Any, given: Any, message: str) -> None:
    model = build("gpt2")
    with pytest.raises(ecospa.ConfigError, match=message):
        ecospa.CoupledSparsity(model, torch.optim.SGD(model.parameters(), lr=0.01),
                               ecospa.EcoSpaConfig(**(ON_CURVE | options)), **given)  # fmt: skip


def test_units_need_a_size_to_come_down_to() -> None:
    model, sparsity = measured("gpt2", ranking="units")
    with pytest.raises(ValueError, match="goal is None; ranking='units'"):
        sparsity.sparsifier.plan(model, sparsity.estimator.importances())

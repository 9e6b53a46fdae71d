"""baselines.surgeon against full factors and loops over heads and units; its costs alone are in test_surgeon_costs."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import baselines.surgeon
import ecospa
from baselines.calibration import Calibration
from baselines.method import TrainingState
from baselines.surgeon import (
    Surgeon,
    cheapest,
    column_costs,
    most_removable,
    projection_costs,
    row_costs,
    structure_costs,
)
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, assert_same_weights
from tests.baselines.test_surgeon_costs import moment
from tests.model_zoo import VOCABULARY, ZOO, build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "bert", "vit", "timm-vit")
SEEDS = (11, 12, 13)


def labelled(kind: str, seed: int) -> dict[str, Tensor]:
    """A batch with labels; one of a text has no label at every fourth position, and more in some batches."""
    batch, generator = inputs(kind, seed), torch.Generator().manual_seed(seed)
    if ZOO[kind].image:
        return batch | {"labels": torch.randint(0, 5, (2,), generator=generator)}
    labels = torch.randint(1, VOCABULARY, batch["input_ids"].shape, generator=generator)
    labels[:, seed % 4 :: 4] = -100
    return batch | {"labels": labels}


def calibration(kind: str) -> list[dict[str, Tensor]]:
    """Three batches of two sequences or images."""
    return [labelled(kind, seed) for seed in SEEDS]


def exact(kind: str) -> Any:
    """A model of the zoo whose own loss stays in float64 too: transformers casts logits of language models down."""
    model: Any = build(kind)
    if ZOO[kind].causal:
        model.loss_function = lambda logits, labels, **_: nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        )
    return model


def compressed(kind: str, target: float, model: nn.Module | None = None, data: Any = None) -> tuple[Any, Surgeon]:
    """The model of a kind after the cut at the end, and the method."""
    model = build(kind) if model is None else model
    run = Surgeon(replace(BUDGET, target_size=target))
    run.prepare(model, calibration(kind) if data is None else data)
    run.finish(TrainingState(model, None, 12, 12))
    return model, run


def full_factors(model: Any, kind: str) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Projection -> W, A and G, from all inputs and output gradients of the summed loss, by hooks and backward."""
    fed: dict[str, list[Tensor]] = {}
    given: dict[str, list[Tensor]] = {}
    weights: dict[str, Tensor] = {}
    hooks = []
    for pair in ecospa.coupled_pairs(model):
        for axis in pair.axes:
            name = axis.parameter.removesuffix(".weight")
            if not axis.parameter.endswith(".weight") or name in weights or "norm" in name:
                continue
            module = model.get_submodule(name)
            weight = module.weight.detach()
            weights[name] = weight if isinstance(module, nn.Linear) else weight.t()

            def keep(module: nn.Module, args: tuple[Tensor], output: Tensor, name: str = name) -> None:
                output.retain_grad()
                fed.setdefault(name, []).append(args[0].detach().reshape(-1, args[0].shape[-1]))
                given.setdefault(name, []).append(output)

            hooks.append(module.register_forward_hook(keep))
    for batch in calibration(kind):
        scores = logits(model, {name: value for name, value in batch.items() if name != "labels"})
        labels = batch["labels"]
        if ZOO[kind].causal:
            scores, labels = scores[:, :-1], labels[:, 1:]
        pairs = zip(scores.reshape(-1, scores.shape[-1]), labels.flatten().tolist(), strict=True)
        loss: Any = sum(-score.log_softmax(0)[label] for score, label in pairs if label != -100)
        loss.backward()
    for hook in hooks:
        hook.remove()
    gradients = {name: torch.cat([y.grad.flatten(0, -2) for y in outputs]) for name, outputs in given.items()}  # type: ignore[union-attr]
    return {name: (weights[name], moment(torch.cat(fed[name])), moment(gradients[name])) for name in weights}


@pytest.mark.parametrize("kind", [*KINDS, "llama-bias-tied", "timm-qk-norm"])
def test_streamed_sums_equal_full_factors(kind: str) -> None:
    factors = full_factors(build(kind), kind)
    found = projection_costs(exact(kind), Calibration(tuple(calibration(kind))))
    assert {name for name, _ in found} == set(factors)
    for (name, side), costs in found.items():
        wanted = (row_costs if side == "rows" else column_costs)(*factors[name])
        assert costs.dtype == torch.float64
        assert torch.allclose(costs, wanted, rtol=1e-9, atol=1e-10 * float(wanted.max())), (name, side)
        assert float(wanted.max()) > 0


def units_by_hand(model: nn.Module, factors: dict[str, tuple[Tensor, Tensor, Tensor]]) -> dict[str, list[list[float]]]:
    """Pair -> groups of unit costs, one projection's row or column after the other, by names and head geometry."""
    found: dict[str, list[list[float]]] = {}
    for pair in ecospa.coupled_pairs(model):
        table = [[0.0] * pair.units for _ in range(pair.groups)]
        for axis in pair.axes:
            if model.get_parameter(axis.parameter).ndim < 2:
                continue
            name = axis.parameter.removesuffix(".weight")
            into = pair.kind != "qk" and axis in pair.right
            costs = (column_costs if into else row_costs)(*factors[name]).tolist()
            for group in range(pair.groups):
                for j in range(pair.width):
                    for position in axis.index[group, j].tolist():
                        table[group][j % pair.units] += costs[position]
        found[pair.name] = table
    return found


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "timm-qk-norm"])
def test_a_unit_costs_what_all_of_its_rows_and_columns_cost(kind: str) -> None:
    wanted = units_by_hand(build(kind), full_factors(build(kind), kind))
    found = structure_costs(exact(kind), Calibration(tuple(calibration(kind))))
    assert list(found) == list(wanted)
    for name, costs in found.items():
        assert torch.allclose(costs, torch.tensor(wanted[name], dtype=torch.float64), rtol=1e-8, atol=1e-14), name


def test_rows_that_belong_together_in_grouped_query_attention() -> None:
    factors = full_factors(build("llama-gqa"), "llama-gqa")
    found = structure_costs(exact("llama-gqa"), Calibration(tuple(calibration("llama-gqa"))))
    q, k, v = (row_costs(*factors[f"model.layers.1.self_attn.{part}_proj"]) for part in "qkv")
    o = column_costs(*factors["model.layers.1.self_attn.o_proj"])
    # head 1 of two key/value heads, 16 wide, serves query heads 2 and 3; couple 3 is positions 3 and 11
    couple = sum(q[16 * head + j] for head in (2, 3) for j in (3, 11)) + k[16 + 3] + k[16 + 11]
    assert float(found["model.layers.1.self_attn.qk"][1, 3]) == pytest.approx(float(couple), rel=1e-8)
    value = v[16 + 5] + o[32 + 5] + o[48 + 5]
    assert float(found["model.layers.1.self_attn.vo"][1, 5]) == pytest.approx(float(value), rel=1e-8)


def kept_by_hand(model: nn.Module, costs: dict[str, list[list[float]]], room: int) -> dict[str, list[list[int]]]:
    """Pair -> positions that stay in every group: the cheapest fitting step per parameter, searched anew every time."""
    pairs = {pair.name: pair for pair in ecospa.coupled_pairs(model)}
    left = {name: [list(range(pair.units)) for _ in range(pair.groups)] for name, pair in pairs.items()}
    sizes = {}
    for name, pair in pairs.items():
        sizes[name] = 0
        for axis in pair.axes:
            value = model.get_parameter(axis.parameter)
            sizes[name] += pair.unit * axis.index[:, 0].numel() * value.numel() // value.shape[axis.axis]
    while True:
        best = None
        for name, groups in left.items():
            if len(groups[0]) > 1 and sizes[name] <= room:
                units = [min(group, key=lambda unit: costs[name][g][unit]) for g, group in enumerate(groups)]
                price = sum(costs[name][g][unit] for g, unit in enumerate(units)) / sizes[name]
                if best is None or price < best[0]:
                    best = (price, name, units)
        if best is None:
            break
        room -= sizes[best[1]]
        for group, unit in zip(left[best[1]], best[2], strict=True):
            group.remove(unit)
    kept: dict[str, list[list[int]]] = {}
    for name, groups in left.items():
        offsets = [part * pairs[name].units for part in range(pairs[name].unit)]
        kept[name] = [sorted(unit + offset for unit in group for offset in offsets) for group in groups]
    return kept


MODELS = {kind: build(kind) for kind in ("gpt2", "llama-gqa", "timm-qk-norm")}


@given(kind=st.sampled_from(sorted(MODELS)), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_choice_is_the_brute_force_ranking(kind: str, share: float, seed: int) -> None:
    model, generator = MODELS[kind], torch.Generator().manual_seed(seed)
    costs = {
        pair.name: torch.rand(pair.groups, pair.units, generator=generator, dtype=torch.float64)
        for pair in ecospa.coupled_pairs(model)
    }
    room = int(share * most_removable(model))
    plan = cheapest(model, costs, room)
    wanted = kept_by_hand(model, {name: values.tolist() for name, values in costs.items()}, room)
    whole = {pair.name: pair.width for pair in ecospa.coupled_pairs(model)}
    assert {name: kept.tolist() for name, kept in plan.kept.items()} == {
        name: kept for name, kept in wanted.items() if len(kept[0]) < whole[name]
    }
    assert plan.parameters_before - plan.parameters_after <= room


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_one_shot_cuts_what_the_loops_choose(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines.surgeon, "SHOTS", 1)
    dense = build(kind)
    model, _ = compressed(kind, 0.6, exact(kind))
    room = parameters(dense, "blocks") - round(0.6 * parameters(dense, "blocks"))
    kept = kept_by_hand(dense, units_by_hand(dense, full_factors(dense, kind)), room)
    wanted = copy.deepcopy(dense)
    plan = {name: torch.tensor(rows) for name, rows in kept.items()}
    ecospa.apply_plan(wanted, ecospa.SparsityPlan.build(wanted, plan))
    assert_same_weights(model, wanted)


def test_every_shot_estimates_anew_and_goes_an_equal_part_of_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(model: nn.Module, data: Calibration) -> dict[str, Tensor]:
        sizes.append(parameters(model, "blocks"))
        return structure_costs(model, data)

    monkeypatch.setattr(baselines.surgeon, "structure_costs", counted)
    whole = parameters(build("gpt2"), "blocks")
    several, _ = compressed("gpt2", 0.5)
    assert len(sizes) == 5
    for shot, size in enumerate([*sizes, parameters(several, "blocks")]):
        assert 0 <= size - (whole - (whole - round(0.5 * whole)) * shot // 5) < 0.01 * whole
    monkeypatch.setattr(baselines.surgeon, "SHOTS", 1)
    sizes.clear()
    single, _ = compressed("gpt2", 0.5)
    assert sizes == [whole]
    assert 0 <= parameters(single, "blocks") - round(0.5 * whole) < 0.01 * whole
    rest = dict(single.named_parameters())
    assert not all(torch.equal(value, rest[name]) for name, value in several.named_parameters())


@pytest.mark.parametrize(
    ("kind", "target"), [*((kind, 0.45) for kind in sorted(ZOO)), ("gpt2", 0.9), ("llama-gqa", 0.9)]
)
def test_it_lands_on_the_target(kind: str, target: float) -> None:
    whole = parameters(build(kind), "blocks")
    model, run = compressed(kind, target)
    blocks = parameters(model, "blocks")
    assert 0 <= blocks - round(target * whole) < 0.01 * whole
    assert [entry["block_parameters"] for entry in run.history] == [whole, blocks]


@pytest.mark.parametrize("kind", ["gpt2", "bert", "timm-vit"])
def test_how_the_data_is_cut_into_batches_does_not_matter(kind: str) -> None:
    model, (first, second, third) = exact(kind), calibration(kind)
    joined = {name: torch.cat([second[name], third[name]]) for name in first}
    found = structure_costs(model, Calibration((first, second, third)))
    for name, costs in structure_costs(model, Calibration((joined, first))).items():
        assert torch.allclose(costs, found[name], rtol=1e-9, atol=0), name


def test_dead_channels_go_first_and_cost_nothing() -> None:
    model: Any = build("gpt2")
    with torch.no_grad():
        for channel in (5, 17, 90):
            model.transformer.h[0].mlp.c_fc.weight[:, channel] = 0
            model.transformer.h[0].mlp.c_proj.weight[channel] = 0
    dense, whole = copy.deepcopy(model), parameters(model, "blocks")
    compressed("gpt2", (whole - 3 * (2 * 32 + 1)) / whole, model)
    assert model.transformer.h[0].mlp.c_fc.weight.shape == (32, 125)
    assert parameters(model, "blocks") == whole - 3 * (2 * 32 + 1)
    with torch.no_grad():
        assert torch.allclose(logits(model, inputs("gpt2", 77)), logits(dense, inputs("gpt2", 77)), rtol=0, atol=1e-11)


def test_nothing_changes_when_nothing_has_to_go() -> None:
    assert_same_weights(compressed("llama-gqa", 1.0)[0], build("llama-gqa"))


def test_the_model_keeps_its_mode_and_its_gradients_and_may_be_frozen() -> None:
    model = exact("bert").train()
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    found = structure_costs(model, Calibration(tuple(calibration("bert"))))
    assert model.training and all(bool((value.grad == 1).all()) for value in model.parameters())
    frozen = exact("bert").requires_grad_(False)
    with torch.no_grad():
        again = structure_costs(frozen, Calibration(tuple(calibration("bert"))))
    assert all(torch.equal(again[name], costs) for name, costs in found.items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "timm-vit"])
def test_it_saves_and_loads_and_still_trains(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = [{n: v.float() if v.is_floating_point() else v for n, v in batch.items()} for batch in calibration(kind)]
    model, run = compressed(kind, 0.5, ZOO[kind].build().eval(), data)
    run.save(model, tmp_path)
    loaded = run.load(tmp_path, ZOO[kind].build()).eval()
    assert_same_weights(loaded, model)
    again = Surgeon(replace(BUDGET, target_size=0.5))
    again.load_state_dict(json.loads(json.dumps(run.state_dict())))
    again.finish(TrainingState(loaded, None, 12, 12, data))
    assert_same_weights(loaded, model)  # cut once, not twice
    optimizer, losses = torch.optim.AdamW(loaded.parameters(), lr=1e-3), []
    batch = {name: value for name, value in data[0].items() if name != "labels"}
    for _ in range(4):
        loss = logits(loaded, batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_it_refuses_to_work_without_calibration_or_labels() -> None:
    with pytest.raises(ecospa.ConfigError, match="surgeon: calibration is None"):
        Surgeon(BUDGET).prepare(build("gpt2"), None)
    for kind in ("gpt2", "timm-vit"):
        with pytest.raises(ecospa.ConfigError, match="surgeon: calibration has no 'labels'"):
            Surgeon(BUDGET).prepare(build(kind), [labelled(kind, 1), inputs(kind)])
    run, model = Surgeon(BUDGET), build("gpt2")
    run.prepare(model, calibration("gpt2"))
    with pytest.raises(ecospa.ConfigError, match="calibration has no 'labels'"):
        run.finish(TrainingState(model, None, 12, 12, [inputs("gpt2")]))
    assert parameters(model) == parameters(build("gpt2"))


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_an_unreachable_target_is_refused_and_the_smallest_one_is_reached(kind: str) -> None:
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value"):
        Surgeon(replace(BUDGET, target_size=0.01)).prepare(build(kind), calibration(kind))
    whole = parameters(build(kind), "blocks")
    model, _ = compressed(kind, (whole - most_removable(build(kind))) / whole)
    assert {pair.units for pair in ecospa.coupled_pairs(model)} == {1}
    with torch.no_grad():
        assert bool(logits(model, inputs(kind)).isfinite().all())


def test_broken_weights_and_data_without_a_label_are_refused() -> None:
    model: Any = build("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.weight[3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"transformer\.h\.0\.attn\.qk: a cost is NaN or infinite"):
        compressed("gpt2", 0.5, model)
    blank = labelled("gpt2", 1)
    blank["labels"] = torch.full_like(blank["labels"], -100)
    with pytest.raises(ecospa.ConfigError, match="labels of -100 alone"):
        compressed("gpt2", 0.5, model := build("gpt2"), [blank])
    assert parameters(model) == parameters(build("gpt2"))

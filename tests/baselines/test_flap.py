"""baselines.flap against loops over tokens, channels and structures; and what its bias keeps exactly."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import ecospa
from baselines.flap import Flap, Moments, compensation, fluctuation, standardise
from baselines.method import TrainingMethod, TrainingState
from baselines.structures import structures
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, assert_same_weights
from tests.model_zoo import ZOO, build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "bert", "vit", "timm-vit")


def calibration(kind: str) -> list[dict[str, Tensor]]:
    """Three batches of two sequences or images."""
    return [inputs(kind, seed) for seed in (11, 12, 13)]


def compressed(
    method: type[TrainingMethod], kind: str, target: float, model: nn.Module | None = None, data: Any = None
) -> tuple[Any, TrainingMethod]:
    """The model of a kind after the method's one cut, and the method."""
    model = build(kind) if model is None else model
    run = method(replace(BUDGET, target_size=target))
    run.prepare(model, calibration(kind) if data is None else data)
    run.finish(TrainingState(model, None, 12, 12))
    return model, run


def output_projections(model: nn.Module) -> dict[str, tuple[str, int, int]]:
    """Structure name -> projection it acts through, number of structures, input channels of one of them."""
    found = {}
    for pair in ecospa.coupled_pairs(model):
        if pair.kind != "qk":
            (axis,) = pair.right
            name = pair.module if pair.kind == "vo" else pair.name
            count = pair.groups if pair.kind == "vo" else pair.width
            size = model.get_parameter(axis.parameter).shape[axis.axis] // count
            found[name] = (axis.parameter.removesuffix(".weight"), count, size)
    return found


def weight_of(model: nn.Module, projection: str) -> Tensor:
    """(out, in), also of GPT-2's transposed matrices."""
    module: Any = model.get_submodule(projection)
    return module.weight.detach() if isinstance(module, nn.Linear) else module.weight.detach().t()


@torch.no_grad()
def seen_inputs(model: nn.Module, kind: str) -> dict[str, Tensor]:
    """Inputs of every output projection over the calibration data: (tokens, in), by hooks in full forward passes."""
    seen: dict[str, list[Tensor]] = {}
    hooks = []
    for projection, _, _ in output_projections(model).values():

        def keep(module: nn.Module, given: tuple[Tensor], name: str = projection) -> None:
            seen.setdefault(name, []).append(given[0].reshape(-1, given[0].shape[-1]))

        hooks.append(model.get_submodule(projection).register_forward_pre_hook(keep))
    for batch in calibration(kind):
        logits(model, batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def surviving(before: nn.Module, after: nn.Module) -> dict[str, list[int]]:
    """Projection -> which of its input channels are left, by looking their columns up in the dense matrix."""
    found = {}
    for projection, _, _ in output_projections(before).values():
        dense, cut = weight_of(before, projection).t(), weight_of(after, projection).t()
        same = (cut[:, None] == dense[None]).all(-1)
        assert bool((same.sum(1) == 1).all()), projection
        found[projection] = same.int().argmax(1).tolist()
    return found


def metric_by_hand(weight: Tensor, fed: Tensor) -> list[float]:
    """Variance over tokens times squared column norm, one channel after the other."""
    metric = []
    for j in range(weight.shape[1]):
        values = fed[:, j].tolist()
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
        metric.append(variance * math.fsum(w**2 for w in weight[:, j].tolist()))
    return metric


def standardised_by_hand(metric: list[float]) -> list[float]:
    """Subtract the mean, divide by the sample's standard deviation."""
    mean = math.fsum(metric) / len(metric)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in metric) / (len(metric) - 1))
    return [(value - mean) / deviation for value in metric]


def channels_by_hand(model: nn.Module, kind: str, target: float, new_biases: int) -> dict[str, list[int]]:
    """Projection -> surviving input channels, by the paper's definitions and a greedy loop over sorted structures."""
    fed, ranked = seen_inputs(model, kind), []
    outputs, found = output_projections(model), structures(model)
    costs = {**found.head_parameters, **found.channel_parameters}
    room = parameters(model, "blocks") - round(target * parameters(model, "blocks")) + new_biases
    for name, (projection, count, size) in outputs.items():
        scores = standardised_by_hand(metric_by_hand(weight_of(model, projection), fed[projection]))
        for number in range(count):
            own = scores[number * size : (number + 1) * size]
            ranked.append((sum(own) / size, name, number))
    left = {name: set(range(count)) for name, (_, count, _) in outputs.items()}
    for _, name, number in sorted(ranked):
        if len(left[name]) > 1 and costs[name] <= room:
            left[name].remove(number)
            room -= costs[name]
    return {
        projection: [number * size + j for number in sorted(left[name]) for j in range(size)]
        for name, (projection, _, size) in outputs.items()
    }


@given(rows=st.integers(1, 4), columns=st.integers(1, 6), tokens=st.integers(2, 9), seed=st.integers(0, 99))
def test_fluctuation_equals_the_loop(rows: int, columns: int, tokens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    fed = torch.randn(tokens, columns, generator=generator, dtype=torch.float64)
    expected = torch.tensor(metric_by_hand(weight, fed), dtype=torch.float64)
    moments = Moments()
    for part in fed.split(2):
        moments.update(part)
    assert torch.allclose(fluctuation(weight, moments.variance), expected, rtol=1e-12, atol=0)
    assert torch.allclose(moments.mean, fed.mean(0), rtol=1e-12, atol=1e-14)
    assert moments.count == tokens


def test_a_large_mean_does_not_drown_the_variance() -> None:
    fed = 1e8 + torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = Moments()
    for part in fed.split(5):
        moments.update(part)
    assert torch.allclose(moments.variance, (fed - 1e8).var(0), rtol=1e-6)


@given(metric=st.lists(st.floats(0, 1e3), min_size=2, max_size=12).filter(lambda values: max(values) - min(values) > 1))
def test_standardise_equals_the_loop(metric: list[float]) -> None:
    found = standardise(torch.tensor(metric, dtype=torch.float64))
    assert found.tolist() == pytest.approx(standardised_by_hand(metric), abs=1e-10)


def test_channels_that_are_all_alike_are_average() -> None:
    assert standardise(torch.full((4,), 0.5, dtype=torch.float64)).tolist() == [0, 0, 0, 0]
    assert standardise(torch.ones(1, dtype=torch.float64)).tolist() == [0]


def test_compensation_is_what_the_removed_channels_give_on_average() -> None:
    weight, fed = torch.randn(3, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    gone = torch.tensor([True, False, True, False, False])
    whole, rest = fed @ weight.t(), fed[:, ~gone] @ weight[:, ~gone].t()
    assert torch.allclose(compensation(weight, fed.mean(0), gone), (whole - rest).mean(0), rtol=1e-12)


@pytest.mark.parametrize("kind", [*KINDS, "llama-bias-tied", "qwen3"])
def test_the_channels_that_stay_are_those_of_the_loop(kind: str) -> None:
    dense = build(kind)
    model, _ = compressed(Flap, kind, 0.6)
    made = set(dict(model.named_parameters())) - set(dict(dense.named_parameters()))
    assert bool(made) == (kind in ("llama-gqa", "qwen3"))
    new_biases = sum(model.get_parameter(name).numel() for name in made)
    assert surviving(dense, model) == channels_by_hand(dense, kind, 0.6, new_biases)


@pytest.mark.parametrize("kind", sorted(ZOO))
def test_mean_outputs_are_kept_exactly(kind: str) -> None:
    dense = build(kind)
    fed = seen_inputs(dense, kind)
    model, _ = compressed(Flap, kind, 0.5)
    changed = 0
    for projection, stays in surviving(dense, model).items():
        before: Any = dense.get_submodule(projection)
        after: Any = model.get_submodule(projection)
        with torch.no_grad():
            wanted, given = before(fed[projection]).mean(0), after(fed[projection][:, stays]).mean(0)
            gap = (after(fed[projection][:, stays]) - before(fed[projection])).abs().max()
        assert torch.allclose(given, wanted, rtol=0, atol=1e-10)
        if len(stays) < fed[projection].shape[1]:
            changed += 1
            assert gap > 1e-3  # single outputs do change: the mean is not kept for want of a cut
    assert changed >= 3


def spread_metrics(model: nn.Module, kind: str) -> None:
    """Scale columns so that S is 1 and 2 in turn in every matrix, except where an input is constant."""
    for projection, _, _ in output_projections(model).values():  # block by block: later inputs depend on earlier ones
        fed, weight = seen_inputs(model, kind)[projection], weight_of(model, projection)
        metric = fed.var(0) * weight.square().sum(0)
        wanted = 1 + torch.arange(len(metric)).remainder(2)
        weight.mul_(torch.where(metric > 1e-20, (wanted / metric.clamp(min=1e-20)).sqrt(), 1))


def test_what_never_varies_goes_first_and_costs_nothing() -> None:
    model: Any = build("gpt2")
    block = model.transformer.h[0]
    with torch.no_grad():
        for channel in (5, 17, 90):
            block.mlp.c_fc.weight[:, channel] = 0
            block.mlp.c_fc.bias[channel] = 1 + channel / 100
        block.attn.c_attn.weight[:, 64 + 16 : 64 + 24] = 0  # the values of head 2 are its bias
        block.attn.c_attn.bias[64 + 16 : 64 + 24] = 3
        spread_metrics(model, "gpt2")
    dense, found = copy.deepcopy(model), structures(model)
    whole = parameters(model, "blocks")
    costs = 3 * found.channel_parameters["transformer.h.0.mlp.ffn"] + found.head_parameters["transformer.h.0.attn"]
    compressed(Flap, "gpt2", (whole - costs) / whole, model)
    assert parameters(model, "blocks") == whole - costs
    stays = surviving(dense, model)
    assert set(range(128)) - set(stays["transformer.h.0.mlp.c_proj"]) == {5, 17, 90}
    assert set(range(32)) - set(stays["transformer.h.0.attn.c_proj"]) == set(range(16, 24))
    batch = inputs("gpt2", seed=77)  # no calibration data: constant for any input
    with torch.no_grad():
        assert torch.allclose(logits(model, batch), logits(dense, batch), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", sorted(ZOO))
@pytest.mark.parametrize("target", [0.45, 0.9])
def test_it_lands_on_the_target_with_the_new_biases(kind: str, target: float) -> None:
    whole = parameters(build(kind), "blocks")
    model, run = compressed(Flap, kind, target)
    blocks = parameters(model, "blocks")
    assert 0 <= blocks - round(target * whole) < 0.01 * whole
    assert [entry["block_parameters"] for entry in run.history] == [whole, blocks]


def test_layers_that_stay_whole_get_no_bias() -> None:
    dense = build("llama-gqa")
    model, _ = compressed(Flap, "llama-gqa", 0.985)
    made = set()
    for name, (projection, count, size) in output_projections(dense).items():
        fewer = weight_of(model, projection).shape[1] < count * size
        assert (model.get_submodule(projection).bias is not None) == fewer, name
        made.add(fewer)
    assert made == {True, False}


def test_nothing_changes_when_nothing_has_to_go() -> None:
    model, _ = compressed(Flap, "llama-gqa", 1.0)
    assert_same_weights(model, build("llama-gqa"))


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_it_repeats_itself(kind: str) -> None:
    first, second = (compressed(Flap, kind, 0.5)[0] for _ in range(2))
    assert_same_weights(first, second)


def test_how_the_data_is_cut_into_batches_does_not_matter() -> None:
    whole = {"input_ids": torch.cat([batch["input_ids"] for batch in calibration("gpt2")])}
    first, second = compressed(Flap, "gpt2", 0.5)[0], compressed(Flap, "gpt2", 0.5, data=[whole])[0]
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12), name


@pytest.mark.parametrize("kind", KINDS)
def test_it_saves_and_loads_and_still_trains(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, run = compressed(Flap, kind, 0.5, ZOO[kind].build().eval(), [_float32(b) for b in calibration(kind)])
    batch = _float32(inputs(kind))
    run.save(model, tmp_path)
    loaded = run.load(tmp_path, ZOO[kind].build()).eval()
    assert_same_weights(loaded, model)
    with torch.no_grad():
        assert torch.equal(logits(loaded, batch), logits(model, batch))
    again = Flap(replace(BUDGET, target_size=0.5))
    again.load_state_dict(json.loads(json.dumps(run.state_dict())))
    again.finish(TrainingState(loaded, None, 12, 12, [_float32(b) for b in calibration(kind)]))
    assert_same_weights(loaded, model)  # cut once, not twice
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = logits(loaded, batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    found: list[Any] = [loaded.get_submodule(name).bias for name, _, _ in output_projections(loaded).values()]
    biases = [bias for bias in found if bias is not None]
    assert len(biases) >= 2 and all(bias.requires_grad and bool(bias.grad.any()) for bias in biases)


def _float32(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}


def test_the_model_stays_the_same_object_in_its_own_mode() -> None:
    model = build("bert").train()
    parameters_before = [id(parameter) for parameter in model.parameters()]
    compressed(Flap, "bert", 0.7, model)
    assert model.training
    assert [id(parameter) for parameter in model.parameters()] == parameters_before


def test_it_refuses_to_work_without_calibration() -> None:
    with pytest.raises(ecospa.ConfigError, match="flap: calibration is None"):
        Flap(BUDGET).prepare(build("gpt2"), None)


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_an_unreachable_target_is_refused_with_the_smallest_one(kind: str) -> None:
    run = Flap(replace(BUDGET, target_size=0.01))
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value is ") as refused:
        run.prepare(build(kind), calibration(kind))
    smallest = float(str(refused.value).split("smallest reachable value is ")[1].split()[0]) + 1e-4
    model, _ = compressed(Flap, kind, smallest)
    assert 0 <= parameters(model, "blocks") - round(smallest * parameters(build(kind), "blocks")) < 100


def test_broken_weights_are_refused_and_nothing_is_cut() -> None:
    model: Any = build("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.weight[3, 4] = float("nan")
    before = parameters(model)
    with pytest.raises(ValueError, match=r"transformer\.h\.1\.mlp\.ffn: a score is NaN"):
        compressed(Flap, "gpt2", 0.5, model)
    assert parameters(model) == before

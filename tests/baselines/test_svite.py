"""baselines.svite: of constant size, dead where it says so, and exchanging what brute force exchanges."""

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
from baselines.method import TrainingState
from baselines.structures import most_removable, structures
from baselines.svite import ALPHA, SViTE, drop_and_grow, first_live, swap_share
from ecospa.accounting import parameters
from tests.baselines.image_runs import KINDS, ImageRun, columns, images, loss_of, parts, rows
from tests.baselines.runs import BUDGET, assert_same_weights, tiny_gpt2
from tests.model_zoo import ZOO, build, logits

IMAGE = [*KINDS, "vit-no-bias", "deit", "timm-deit-distilled", "timm-qk-norm"]


@pytest.mark.parametrize("kind", IMAGE)
@pytest.mark.parametrize("target", [0.4, 0.7])
def test_it_has_the_target_size_from_the_first_step_on(kind: str, target: float) -> None:
    run = ImageRun.fresh(kind, target_size=target)
    whole, stored = parameters(build(kind), "blocks"), parameters(build(kind))
    sizes = []
    for step in range(13):
        run.train(step)
        sizes.append(run.method.nonzero_parameters(run.model))
        assert parameters(run.model) == stored
    assert len(set(sizes)) == 1
    assert 0 <= sizes[0][1] - round(target * whole) < 0.01 * whole
    assert sizes[0][0] - sizes[0][1] == stored - whole
    assert run.method.effective_parameters(run.model) == sizes[0]
    (entry,) = run.method.history
    assert (entry["step"], entry["parameters"], entry["block_parameters"]) == (0, *sizes[0])
    run.finish()
    assert (parameters(run.model), parameters(run.model, "blocks")) == sizes[0]
    assert run.method.nonzero_parameters(run.model) == sizes[0] == run.method.effective_parameters(run.model)
    assert {pair.name: pair.width for pair in ecospa.coupled_pairs(run.model)} == entry["widths"]


def test_the_whole_model_can_be_what_the_target_counts() -> None:
    whole, blocks = parameters(build("vit")), parameters(build("vit"), "blocks")
    run = ImageRun.fresh("vit", target_size=0.7, target_scope="parameters")
    assert 0 <= run.method.nonzero_parameters(run.model)[0] - round(0.7 * whole) < 0.01 * blocks


def dense_gradients(model: nn.Module, kind: str, steps: list[int]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Of a copy, which has no hooks: gradients of output matrices, and |sum of a * dL/da| over the inputs of heads."""
    twin = copy.deepcopy(model)
    fed: dict[str, list[Tensor]] = {}
    found = parts(twin, kind)
    for name, part in found.items():

        def keep(module: nn.Module, args: Any, name: str = name) -> None:
            args[0].retain_grad()
            fed.setdefault(name, []).append(args[0])

        part["output"].register_forward_pre_hook(keep)
    for step in steps:
        loss_of(twin, kind, step).backward()
    taylor = {}
    for name, part in found.items():
        for number in range(part["count"]):
            cut = [(a[..., columns(part, number)], a.grad[..., columns(part, number)]) for a in fed[name]]
            taylor[f"{name}/{number}"] = abs(sum(float((a.detach() * grad).sum()) for a, grad in cut))
    return {name: part["output"].weight.grad for name, part in found.items()}, taylor


@torch.no_grad()
def exchanged_by_hand(model: nn.Module, kind: str, live: dict[str, Tensor], share: float, steps: list[int]) -> Any:
    """Live structures after an event, with plain lists and loops."""
    with torch.enable_grad():
        gradients, taylor = dense_gradients(model, kind, steps)
    result = {}
    for name, part in parts(model, kind).items():
        old, scores = live[name].tolist(), {}
        for number in old:
            if part["width"] == 1:
                fc1 = part["inputs"][0][0].weight
                scores[number] = float(fc1[number].abs().sum() + part["output"].weight[:, number].abs().sum())
            else:
                scores[number] = taylor[f"{name}/{number}"]
        count = math.ceil(share * len(old))
        stays = sorted(old, key=lambda number: scores[number])[count:]
        growth = {n: float(gradients[name][:, columns(part, n)].abs().sum()) for n in range(part["count"])}
        others = sorted((n for n in range(part["count"]) if n not in stays), key=lambda n: -growth[n])
        assert all(growth[n] > 0 for n in others)  # what is dead has a gradient to grow by
        result[name] = sorted([*stays, *others[:count]])
    return result


@pytest.mark.parametrize("kind", ["vit", "timm-vit", "deit", "timm-qk-norm"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_an_event_exchanges_what_brute_force_exchanges(kind: str, micro_batches: int) -> None:
    run = ImageRun.fresh(kind, torch.float64, start_step=0, end_step=12, interval=4).train(3)
    old = {name: numbers.clone() for name, numbers in run.live.items()}
    expected = exchanged_by_hand(run.model, kind, old, swap_share(4, 0, 12), list(range(3, 3 + micro_batches)))
    for step in range(3, 3 + micro_batches):
        loss_of(run.model, kind, step).backward()
    run.update()
    assert {name: numbers.tolist() for name, numbers in run.live.items()} == expected
    assert any(set(expected[name]) != set(old[name].tolist()) for name in old)
    for name, part in parts(run.model, kind).items():
        for number in set(expected[name]) - set(old[name].tolist()):  # grown from zero, without a past
            assert not part["output"].weight[:, columns(part, number)].any()
            modules = [(part["output"].weight, 1, columns(part, number))]
            modules += [(module.weight, 0, rows(part, number, offset)) for module, offset in part["inputs"]]
            for weight, axis, where in modules:
                for value in run.optimizer.state[weight].values():
                    if value.ndim:
                        assert not (value[:, where] if axis else value[where]).any()
    run.backward()
    run.update()
    for name, part in parts(run.model, kind).items():
        for number in set(expected[name]) - set(old[name].tolist()):  # and trained from then on
            assert part["output"].weight[:, columns(part, number)].any()


@given(
    count=st.integers(1, 9), share=st.floats(0, 1), seed=st.integers(0, 999), ties=st.booleans(), fill=st.floats(0, 1)
)
def test_drop_and_grow_equals_the_loop(count: int, share: float, seed: int, ties: bool, fill: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    live = torch.randperm(count, generator=generator)[: max(1, round(fill * count))].sort().values
    drop, growth = torch.rand(2, count, generator=generator, dtype=torch.float64)
    if ties:
        drop, growth = (3 * drop).round(), (3 * growth).round()
    number = math.ceil(share * len(live) - 1e-9)
    stays = sorted(live.tolist(), key=lambda n: (float(drop[n]), n))[number:]
    others = sorted((n for n in range(count) if n not in stays), key=lambda n: (-float(growth[n]), n))
    assert drop_and_grow(live, drop, growth, share).tolist() == sorted([*stays, *others[:number]])


def test_the_exchanged_share_decays_by_a_cosine() -> None:
    assert swap_share(10, 10, 110) == ALPHA
    assert swap_share(60, 10, 110) == pytest.approx(ALPHA / 2)
    assert swap_share(35, 10, 110) == pytest.approx(ALPHA / 2 * (1 + math.sqrt(0.5)))
    assert swap_share(110, 10, 110) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_live_first(kind: str) -> None:
    model = build(kind)
    live = first_live(model, parameters(model, "blocks") - round(0.5 * parameters(model, "blocks")))
    counts = set()
    for name, part in parts(model, kind).items():
        norms = {}
        for number in range(part["count"]):
            own = [module.weight.detach()[rows(part, number, offset)] for module, offset in part["inputs"]]
            own.append(part["output"].weight.detach()[:, columns(part, number)])
            norms[number] = sum(float(weight.abs().sum()) for weight in own)
        assert live[name].tolist() == sorted(sorted(norms, key=lambda n: -norms[n])[: len(live[name])])
        assert 0 < len(live[name]) < part["count"]
        counts.add((part["width"], len(live[name])))
    assert len([count for width, count in counts if width > 1]) == 1  # the same share in every layer


def test_events_end_before_the_end_step() -> None:
    run = ImageRun.fresh("vit", start_step=2, end_step=8, interval=3)
    changes = []
    for step in range(1, 13):
        before = {name: numbers.clone() for name, numbers in run.live.items()}
        run.train(step)
        if any(not torch.equal(before[name], run.live[name]) for name in before):
            changes.append(step)
    assert changes == [5]


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_repeats_itself(kind: str) -> None:
    first, second = (ImageRun.fresh(kind).train(12).finish() for _ in range(2))
    assert first.losses == second.losses and sum(first.losses[-3:]) < sum(first.losses[:3])
    assert first.method.state_dict() == second.method.state_dict()
    assert_same_weights(first.model, second.model)


@pytest.mark.parametrize(("kind", "stop"), [("vit", 0), ("vit", 3), ("timm-vit", 4), ("vit", 7), ("timm-vit", 12)])
def test_a_resumed_run_equals_an_uninterrupted_one(kind: str, stop: int, tmp_path: Path) -> None:
    whole = ImageRun.fresh(kind).train(12).finish()
    halves = ImageRun.fresh(kind).train(stop).resumed(tmp_path).train(12).finish()
    assert halves.losses == whole.losses
    assert halves.method.history == whole.method.history
    assert halves.method.state_dict() == whole.method.state_dict()
    assert halves.method.nonzero_parameters(halves.model) == whole.method.nonzero_parameters(whole.model)
    assert_same_weights(halves.model, whole.model)


@pytest.mark.parametrize("kind", KINDS)
def test_it_saves_and_loads(kind: str, tmp_path: Path) -> None:
    run = ImageRun.fresh(kind).train(12).finish()
    run.method.save(run.model, tmp_path)
    loaded = run.method.load(tmp_path, build(kind).float()).train()
    assert_same_weights(loaded, run.model)
    with torch.no_grad():
        assert torch.equal(logits(loaded.eval(), images(kind, 9)), logits(run.model.eval(), images(kind, 9)))
    again = SViTE(run.method.budget)
    again.load_state_dict(json.loads(json.dumps(run.method.state_dict())))
    assert again.state_dict() == run.method.state_dict()
    assert again.nonzero_parameters(loaded) == run.method.nonzero_parameters(run.model)
    again.finish(TrainingState(loaded, None, 12, 12))
    assert_same_weights(loaded, run.model)  # cut once, not twice


@pytest.mark.parametrize("kind", KINDS)
def test_without_steps_the_largest_are_left(kind: str) -> None:
    model, method = build(kind), SViTE(replace(BUDGET, total_steps=1, start_step=0, end_step=1, interval=1))
    whole = parameters(model, "blocks")
    method.prepare(model, None)
    method.build_optimizer(model)
    loss_of(model, kind, 0).backward()
    method.after_backward(TrainingState(model, None, 0, 1))
    method.after_step(TrainingState(model, None, 1, 1))
    method.finish(TrainingState(model, None, 1, 1))
    assert 0 <= parameters(model, "blocks") - round(0.5 * whole) < 0.01 * whole


def test_a_broken_gradient_is_told_and_exchanges_nothing() -> None:
    run = ImageRun.fresh("vit").train(3)
    before = copy.deepcopy(run.live)
    (loss_of(run.model, "vit", 3) * float("nan")).backward()
    run.optimizer.param_groups[0]["lr"] = 0.0
    with pytest.warns(ecospa.SkippedEventWarning, match="step 4: the gradient of .* is NaN"):
        run.update()
    assert all(torch.equal(before[name], run.live[name]) for name in before)
    run = ImageRun.fresh("vit")
    run.step = 4
    with pytest.warns(ecospa.SkippedEventWarning, match="step 4: no gradient was seen"):
        run.method.after_step(run.state())


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ecospa.UnsupportedModelError, match="svite is not defined for the gpt2 family"):
        SViTE(BUDGET).prepare(tiny_gpt2(), None)
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value"):
        ImageRun.fresh("vit", target_size=0.01)
    with pytest.raises(ecospa.ConfigError, match="target_size is None"):
        SViTE(replace(BUDGET, target_size=None))
    whole = parameters(build("vit"), "blocks")
    run = ImageRun.fresh("vit", target_size=(whole - most_removable(build("vit"))) / whole).train(12).finish()
    assert set(structures(run.model).heads.values()) == {1} and set(structures(run.model).channels.values()) == {1}


def test_another_model_is_refused() -> None:
    run = ImageRun.fresh("vit")
    with pytest.raises(ValueError, match="not the one of the hooks before"):
        run.method.build_optimizer(build("vit"))
    again = SViTE(BUDGET)
    again.load_state_dict(run.method.state_dict())
    with pytest.raises(ValueError, match="what should be dead is not zero"):
        again.build_optimizer(build("vit"))
    with pytest.raises(ValueError, match="not of the saved state's shape"):
        again.build_optimizer(build("timm-vit"))
    model, method = build("vit"), SViTE(BUDGET)
    method.prepare(model, None)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match=r"o_proj\.weight is frozen"):
        method.build_optimizer(model)


def test_the_zoo_is_covered() -> None:
    assert set(IMAGE) == {kind for kind, sample in ZOO.items() if sample.image}

"""baselines.wanda_sp against loops, and its uniform share against what every layer really loses."""

from __future__ import annotations

import copy
import functools
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
from baselines.wanda_sp import WandaSp, uniform_shares, wanda_score
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, assert_same_weights
from tests.baselines.test_flap import calibration, compressed, output_projections, seen_inputs, surviving, weight_of
from tests.model_zoo import ZOO, build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "bert", "vit", "timm-vit")


def score_by_hand(weight: Tensor, fed: Tensor) -> list[float]:
    """Norm of the input over tokens times the sum of absolute weights, one channel after the other."""
    return [
        math.sqrt(math.fsum(value**2 for value in fed[:, j].tolist())) * math.fsum(map(abs, weight[:, j].tolist()))
        for j in range(weight.shape[1])
    ]


def channels_by_hand(dense: nn.Module, kind: str, shares: dict[str, int]) -> dict[str, list[int]]:
    """Projection -> surviving input channels; removed ones are set to zero, and whole forward passes made again."""
    model, stays, outputs = copy.deepcopy(dense), {}, output_projections(dense)
    names = list(outputs)
    for block in range(0, len(names), 2):  # an attention and an FFN in each
        fed = seen_inputs(model, kind)
        for name in names[block : block + 2]:
            projection, count, size = outputs[name]
            weight = weight_of(model, projection)
            scores = score_by_hand(weight, fed[projection])
            order = sorted(range(count), key=lambda number: sum(scores[number * size : (number + 1) * size]))
            kept = sorted(order[shares[name] :])
            stays[projection] = [number * size + j for number in kept for j in range(size)]
            weight[:, sorted(set(range(count * size)) - set(stays[projection]))] = 0
    return stays


@given(rows=st.integers(1, 4), columns=st.integers(1, 6), tokens=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_score_equals_the_loop(rows: int, columns: int, tokens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    fed = torch.randn(tokens, columns, generator=generator, dtype=torch.float64)
    assert wanda_score(weight, fed.norm(dim=0)).tolist() == pytest.approx(score_by_hand(weight, fed), rel=1e-12)


@pytest.mark.parametrize("kind", [*KINDS, "qwen2", "deit"])
def test_every_block_is_scored_on_what_the_cut_blocks_before_it_give(kind: str) -> None:
    dense = build(kind)
    blocks = parameters(dense, "blocks")
    shares = uniform_shares(dense, blocks - round(0.5 * blocks))
    model, _ = compressed(WandaSp, kind, 0.5)
    assert min(shares.values()) >= 1
    assert surviving(dense, model) == channels_by_hand(dense, kind, shares)


@functools.cache
def _model(kind: str) -> nn.Module:
    return build(kind)


@given(kind=st.sampled_from(["gpt2", "llama-gqa", "bert", "timm-vit"]), share=st.floats(0, 1))
def test_every_layer_loses_the_same_share(kind: str, share: float) -> None:
    model = _model(kind)
    found, removable = structures(model), int(share * most_removable(_model(kind)))
    shares = uniform_shares(model, removable)
    names = list(output_projections(model))
    losses = []
    for attention, ffn in zip(names[::2], names[1::2], strict=True):
        heads, channels = shares[attention], shares[ffn]
        assert 0 <= heads < found.heads[attention] and 0 <= channels < found.channels[ffn]
        losses.append(heads * found.head_parameters[attention] + channels * found.channel_parameters[ffn])
        whole = found.heads[attention] * found.head_parameters[attention]
        whole += found.channels[ffn] * found.channel_parameters[ffn]
        exact = removable / len(names) * 2 / whole * found.heads[attention]
        assert heads >= min(math.floor(exact + 1e-9), found.heads[attention] - 1)
        if channels < found.channels[ffn] - 1 and heads > math.floor(exact + 1e-9):
            # one more head than its share only where all channels would not have sufficed
            fewer = (heads - 1) * found.head_parameters[attention]
            assert fewer + (found.channels[ffn] - 1) * found.channel_parameters[ffn] < removable / len(names) * 2
    step = max(found.channel_parameters.values())
    assert removable - step < sum(losses) <= removable
    assert max(losses) - min(losses) <= step
    assert len({shares[name] for name in names[::2]}) == 1


def test_heads_are_rounded_down_as_a_share_of_their_number() -> None:
    model = build("gpt2")
    found = structures(model)
    total = sum(found.heads[name] * cost for name, cost in found.head_parameters.items())
    total += sum(found.channels[name] * cost for name, cost in found.channel_parameters.items())
    for share, heads in ((0.24, 0), (0.26, 1), (0.49, 1), (0.51, 2), (0.76, 3)):
        shares = uniform_shares(model, int(share * total))
        assert [shares[name] for name in found.heads] == [heads, heads], share


@pytest.mark.parametrize("kind", sorted(ZOO))
@pytest.mark.parametrize("target", [0.45, 0.7, 0.9])
def test_it_lands_on_the_target(kind: str, target: float) -> None:
    whole = parameters(build(kind), "blocks")
    model, run = compressed(WandaSp, kind, target)
    blocks = parameters(model, "blocks")
    assert 0 <= blocks - round(target * whole) < 0.01 * whole
    assert [entry["block_parameters"] for entry in run.history] == [whole, blocks]


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_weights_that_stay_do_not_change_and_nothing_is_compensated(kind: str) -> None:
    dense = build(kind)
    model, _ = compressed(WandaSp, kind, 0.5)
    surviving(dense, model)  # every column is one of the dense model's
    before = dict(dense.named_parameters())
    assert set(dict(model.named_parameters())) == set(before)
    for name, parameter in model.named_parameters():
        assert bool(torch.isin(parameter, before[name]).all()), name
        if parameter.shape == before[name].shape:
            assert torch.equal(parameter, before[name]), name


def test_nothing_changes_when_nothing_has_to_go() -> None:
    model, _ = compressed(WandaSp, "llama-gqa", 1.0)
    assert_same_weights(model, build("llama-gqa"))


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_it_repeats_itself(kind: str) -> None:
    first, second = (compressed(WandaSp, kind, 0.5)[0] for _ in range(2))
    assert_same_weights(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_it_saves_and_loads_and_still_trains(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = [_float32(batch) for batch in calibration(kind)]
    model, run = compressed(WandaSp, kind, 0.5, ZOO[kind].build().eval(), data)
    run.save(model, tmp_path)
    loaded = run.load(tmp_path, ZOO[kind].build()).eval()
    assert_same_weights(loaded, model)
    with torch.no_grad():
        assert torch.equal(logits(loaded, data[0]), logits(model, data[0]))
    again = WandaSp(replace(BUDGET, target_size=0.5))
    again.load_state_dict(json.loads(json.dumps(run.state_dict())))
    again.finish(TrainingState(loaded, None, 12, 12, data))
    assert_same_weights(loaded, model)  # cut once, not twice
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = logits(loaded, data[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def _float32(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}


def test_it_refuses_to_work_without_calibration() -> None:
    with pytest.raises(ecospa.ConfigError, match="wanda_sp: calibration is None"):
        WandaSp(BUDGET).prepare(build("gpt2"), None)


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_an_unreachable_target_is_refused_and_the_smallest_one_is_reached(kind: str) -> None:
    run = WandaSp(replace(BUDGET, target_size=0.01))
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value"):
        run.prepare(build(kind), calibration(kind))
    whole = parameters(build(kind), "blocks")
    model, _ = compressed(WandaSp, kind, (whole - most_removable(build(kind))) / whole)
    assert {pair.groups for pair in ecospa.coupled_pairs(model)} == {1}
    assert {pair.width for pair in ecospa.coupled_pairs(model) if pair.kind == "ffn"} == {1}
    with torch.no_grad():
        assert bool(logits(model, inputs(kind)).isfinite().all())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("attn.c_proj", r"transformer\.h\.0\.mlp\.c_proj: its inputs are NaN or infinite"),
        ("mlp.c_proj", r"transformer\.h\.0\.mlp\.ffn: a score is NaN or infinite"),
    ],
)
def test_broken_weights_are_refused(place: str, message: str) -> None:
    model: Any = build("gpt2")
    with torch.no_grad():
        model.transformer.h[0].get_submodule(place).weight[3, 4] = float("inf")
    with pytest.raises(ValueError, match=message):
        compressed(WandaSp, "gpt2", 0.5, model)
    assert parameters(model) == parameters(build("gpt2"))

"""Whole heads removed: the cut model equals the dense one with those heads at zero, saves, loads, trains on."""

from __future__ import annotations

import copy

import pytest
import torch

import ecospa
from ecospa.surgery import add_biases, keep_heads
from tests.invariants.test_checkpoints import reload_float64
from tests.model_zoo import ZOO, build, inputs, logits, random_plan

KINDS = list(ZOO)


def attentions(model):
    """Attention module -> key/value heads."""
    return {pair.module: pair.groups for pair in ecospa.coupled_pairs(model) if pair.kind != "ffn"}


def random_heads(model, seed):
    """Another number of heads, other heads, in every layer."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for name, groups in attentions(model).items():
        count = int(torch.randint(1, groups, (1,), generator=generator))
        kept[name] = torch.randperm(groups, generator=generator)[:count].sort().values
    return kept


@torch.no_grad()
def without_heads(model, kept):
    """The dense model with the other heads at zero: only what they write into the output projection counts."""
    dense = copy.deepcopy(model)
    for pair in ecospa.coupled_pairs(model):
        if pair.kind == "vo":
            gone = sorted(set(range(pair.groups)) - set(kept[pair.module].tolist()))
            for axis in pair.axes:
                dense.get_parameter(axis.parameter).index_fill_(axis.axis, axis.index[gone].flatten(), 0)
    return dense


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_model_without_heads_equals_the_one_with_zeroed_heads(kind):
    model = build(kind)
    kept = random_heads(model, 3)
    dense = without_heads(model, kept)
    before = sum(p.numel() for p in model.parameters())
    keep_heads(model, kept)
    assert attentions(model) == {name: len(heads) for name, heads in kept.items()}
    assert sum(p.numel() for p in model.parameters()) < before
    assert (logits(model, inputs(kind)) - logits(dense, inputs(kind))).abs().max() < 1e-10


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_heads_and_widths_go_in_either_order(kind):
    first, second = build(kind), build(kind)
    kept, plan = random_heads(first, 4), random_plan(first, 5)
    keep_heads(first, kept)
    rows = {pair.name: kept.get(pair.module) for pair in ecospa.coupled_pairs(second)}
    left = {name: p if rows[name] is None else p[rows[name]] for name, p in plan.kept.items()}
    ecospa.apply_plan(first, ecospa.SparsityPlan.build(first, left))
    ecospa.apply_plan(second, plan)
    keep_heads(second, kept)
    assert torch.equal(logits(first, inputs(kind)), logits(second, inputs(kind)))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_round_trip_is_bitwise(kind, tmp_path):
    model = ZOO[kind].build().double().eval()
    keep_heads(model, random_heads(model, 6))
    ecospa.apply_plan(model, random_plan(model, 7))
    ecospa.save_pretrained(model, tmp_path)
    again = reload_float64(tmp_path, kind)
    assert attentions(again) == attentions(model)
    assert torch.equal(logits(again, inputs(kind)), logits(model, inputs(kind)))


@pytest.mark.parametrize("kind", ["llama-gqa", "qwen3", "gpt2"])
@torch.no_grad()
def test_new_biases_are_saved_and_loaded(kind, tmp_path):
    model = ZOO[kind].build().double().eval()
    whole = logits(model, inputs(kind))
    attention = next(iter(attentions(model)))
    output = f"{attention}.{'c_proj' if kind == 'gpt2' else 'o_proj'}"
    value = torch.randn(32, dtype=torch.float64)
    add_biases(model, {output: value})
    added = logits(model, inputs(kind))
    assert not torch.allclose(added, whole)
    ecospa.save_pretrained(model, tmp_path)
    assert torch.equal(logits(reload_float64(tmp_path, kind), inputs(kind)), added)
    add_biases(model, {output: -value})
    assert (logits(model, inputs(kind)) - whole).abs().max() < 1e-12


def test_optimizer_state_follows_the_heads():
    model = build("gpt2")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    logits(model, inputs("gpt2")).square().mean().backward()
    optimizer.step()
    kept = random_heads(model, 8)
    moment = optimizer.state[model.transformer.h[0].attn.c_proj.weight]["exp_avg"].clone()
    keep_heads(model, kept, optimizer)
    rows = torch.cat([torch.arange(8) + 8 * head for head in kept["transformer.h.0.attn"].tolist()])
    assert torch.equal(optimizer.state[model.transformer.h[0].attn.c_proj.weight]["exp_avg"], moment[rows])
    optimizer.zero_grad()
    logits(model, inputs("gpt2")).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"transformer.h.9.attn": torch.tensor([0])}, "no such attention module"),
        ({"transformer.h.0.attn": torch.tensor([], dtype=torch.int64)}, "ascending head numbers"),
        ({"transformer.h.0.attn": torch.tensor([1, 0])}, "ascending head numbers"),
        ({"transformer.h.0.attn": torch.tensor([0, 4])}, r"\[0, 4\)"),
        ({"transformer.h.0.attn": torch.tensor([-1])}, r"\[0, 4\)"),
    ],
)
def test_senseless_heads_are_refused_and_nothing_is_cut(kept, message):
    model = build("gpt2")
    before = logits(model, inputs("gpt2"))
    with pytest.raises(ecospa.PlanError, match=message):
        keep_heads(model, kept)
    assert torch.equal(logits(model, inputs("gpt2")), before)


def test_a_bias_of_another_size_is_refused():
    model = build("llama-gqa")
    with pytest.raises(ecospa.PlanError, match="has 32 outputs"):
        add_biases(model, {"model.layers.0.self_attn.o_proj": torch.zeros(31)})

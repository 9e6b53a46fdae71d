"""CoLA: B silu(A x) in the place of every projection, initial values of the right variance, and a real saving."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from baselines.cola import BottleneckLinear, CoLA
from baselines.initialization import SCALED, scale_residual_outputs
from baselines.low_rank import LowRank
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET
from tests.model_zoo import build, inputs, logits


def layers(model: nn.Module) -> dict[str, BottleneckLinear]:
    return {name: part for name, part in model.named_modules() if isinstance(part, BottleneckLinear)}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "vit"])
def test_every_projection_is_two_matrices_around_silu(kind: str) -> None:
    model = build(kind)
    CoLA(replace(BUDGET, target_size=None)).prepare(model)
    found = layers(model)
    assert found and not any(isinstance(part, nn.Linear) and "layers.0" in name and name not in found and
                             not name.endswith(("inner", "outer")) for name, part in model.named_modules())  # fmt: skip
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, part in found.items():
        part.register_forward_hook(lambda part, args, out, name=name: seen.update({name: (args[0], out)}))
    logits(model, inputs(kind))
    assert seen.keys() == found.keys()
    for name, (states, out) in seen.items():
        down, up = found[name].inner.weight, found[name].outer.weight
        hidden = states @ down.T
        expected = (hidden / (1 + torch.exp(-hidden))) @ up.T
        if found[name].outer.bias is not None:
            expected = expected + found[name].outer.bias
        assert (out - expected).abs().max() < 1e-12


def test_the_product_starts_with_the_variance_of_the_authors() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(
        num_hidden_layers=1, hidden_size=256, intermediate_size=512, num_attention_heads=4, vocab_size=32,
    ))  # fmt: skip
    CoLA(replace(BUDGET, target_size=None)).prepare(model)
    for part in layers(model).values():
        down, up = part.inner, part.outer
        assert part.rank == 64
        product = up.weight @ down.weight
        ratio = float(product.detach().var()) * (up.out_features + down.in_features)
        assert 0.93 < ratio < 1.07
        assert 0.95 < float(down.weight.detach().std() / up.weight.detach().std()) < 1.05


def test_residual_outputs_of_a_scaled_model_start_smaller() -> None:
    plain, scaled = build("llama-gqa"), build("llama-gqa")
    setattr(scaled.config, SCALED, True)
    scale_residual_outputs(scaled)
    for model in (plain, scaled):
        CoLA(replace(BUDGET, target_size=None)).prepare(model)
    for name, part in layers(plain).items():
        factor = 0.5 if name.endswith(("o_proj", "down_proj")) else 1.0  # two layers
        other = layers(scaled)[name]
        assert (factor * part.outer.weight - other.outer.weight).abs().max() < 1e-7, name
        assert torch.equal(part.inner.weight, other.inner.weight)


@pytest.mark.parametrize("target", [0.5, None])
def test_sizes_are_those_of_low_rank(target: float | None) -> None:
    ours, theirs = build("llama-gqa"), build("llama-gqa")
    budget = replace(BUDGET, target_size=target)
    CoLA(budget).prepare(ours)
    LowRank(budget).prepare(theirs)
    assert parameters(ours) == parameters(theirs) < parameters(build("llama-gqa"))


def test_the_seed_decides_and_nobody_elses_numbers_are_drawn() -> None:
    weights = []
    for seed in (1, 1, 2):
        model = build("gpt2")
        state = torch.get_rng_state()
        CoLA(replace(BUDGET, seed=seed)).prepare(model)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(copy.deepcopy(next(iter(layers(model).values())).inner.weight))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_frozen_projections_stay_frozen() -> None:
    model = build("gpt2")
    model.transformer.h[0].mlp.c_fc.weight.requires_grad_(False)
    CoLA(replace(BUDGET, target_size=None)).prepare(model)
    part = layers(model)["transformer.h.0.mlp.c_fc"]
    assert not part.inner.weight.requires_grad and not part.outer.weight.requires_grad
    assert part.outer.bias.requires_grad

"""SLTrain: the dense W of factors and sparse entries, its gradients, random places, and sizes that count all of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ecospa
from baselines.cola import CoLA
from baselines.low_rank_linear import matrix_shapes
from baselines.sltrain import SLTrain, SparsePlusLowRankLinear
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, Run, tiny_gpt2
from tests.model_zoo import build, inputs, logits


def layers(model: nn.Module) -> dict[str, SparsePlusLowRankLinear]:
    return {name: part for name, part in model.named_modules() if isinstance(part, SparsePlusLowRankLinear)}


def sltrain(kind: str = "llama-gqa", **fields: Any) -> Any:
    model = build(kind)
    SLTrain(replace(BUDGET, **{"target_size": None, **fields})).prepare(model)
    return model


def dense(part: SparsePlusLowRankLinear) -> torch.Tensor:
    """W entry by entry."""
    up, down = part.outer.weight.detach(), part.inner.weight.detach()
    product = 0.25 * torch.einsum("or,ri->oi", up, down)
    for place, value in zip(part.places.tolist(), part.values.detach(), strict=True):
        product[place // down.shape[1], place % down.shape[1]] += value
    return product


def test_outputs_and_gradients_are_those_of_the_dense_product() -> None:
    model = sltrain("gpt2")
    part = layers(model)["transformer.h.0.mlp.c_fc"]
    nn.init.normal_(part.outer.weight)
    weight = dense(part)
    states = torch.randn(3, 7, 32, dtype=torch.float64, requires_grad=True)
    out = part(states)
    assert (out - states @ weight.T - part.outer.bias).abs().max() < 1e-12
    assert (part.weight - weight).abs().max() < 1e-12
    seen = torch.randn_like(out)
    (out * seen).sum().backward()
    whole = torch.einsum("bto,bti->oi", seen, states.detach())
    assert (states.grad - seen @ weight).abs().max() < 1e-12
    assert (part.values.grad - whole.flatten()[part.places]).abs().max() < 1e-12
    assert (part.outer.weight.grad - 0.25 * whole @ part.inner.weight.T).abs().max() < 1e-12
    assert (part.inner.weight.grad - 0.25 * part.outer.weight.T @ whole).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "vit"])
def test_every_projection_has_factors_and_three_percent_of_its_entries(kind: str) -> None:
    shapes = matrix_shapes(build(kind))
    model = sltrain(kind)
    found = layers(model)
    assert found.keys() <= shapes.keys() and len(found) >= len(shapes) - 4
    for name, part in found.items():
        out, inner = shapes[name]
        entries = int(0.03 * out * inner)
        assert part.rank == min(out, inner) // 4
        assert part.places.shape == part.values.shape == (entries,)
        assert len(set(part.places.tolist())) == entries and part.places.tolist() == sorted(part.places.tolist())
        assert int(part.places.min()) >= 0 and int(part.places.max()) < out * inner
        assert not bool(part.outer.weight.any())
        for drawn in (part.values, part.inner.weight):
            assert 0.5 / math.sqrt(inner) < float(drawn.detach().abs().max()) <= 1 / math.sqrt(inner)
    assert bool(torch.isfinite(logits(model, inputs(kind))).all())


def test_places_spread_over_the_matrix_and_follow_from_the_seed() -> None:
    counts = torch.zeros(4, 4, dtype=torch.float64)
    for seed in range(12):
        found = layers(sltrain("gpt2", seed=seed))
        for block in (0, 1):
            places = found[f"transformer.h.{block}.mlp.c_fc"].places  # in (128, 32)
            cells = torch.stack([places // 32 // 32, places % 32 // 8], 1).double()
            counts += torch.histogramdd(cells, bins=[4, 4], range=[0.0, 4.0, 0.0, 4.0])[0]
    expected = 24 * int(0.03 * 128 * 32) / 16
    assert ((counts - expected).abs() < 5 * math.sqrt(expected)).all()
    one, same, other = (layers(sltrain("gpt2", seed=seed)) for seed in (1, 1, 2))
    name = "transformer.h.1.attn.c_attn"
    assert torch.equal(one[name].places, same[name].places) and torch.equal(one[name].values, same[name].values)
    assert not torch.equal(one[name].places, other[name].places)


@pytest.mark.parametrize("scope", ["blocks", "parameters"])
@pytest.mark.parametrize("target", [1.0, 0.9, 0.5])
def test_it_lands_above_the_target_and_counts_the_sparse_entries(target: float, scope: Any) -> None:
    whole = build("llama-gqa")
    model = sltrain(target_size=target, target_scope=scope)
    over = parameters(model, scope) - round(target * parameters(whole, scope))
    assert 0 <= over < max(sum(shape) for shape in matrix_shapes(whole).values())
    if target == 0.5:
        assert layers(model)
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value is"):
        sltrain(target_size=0.01, target_scope=scope)


def test_places_never_change_and_everything_else_trains() -> None:
    run = Run.fresh(SLTrain)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train(3).finish()
    still = {name for name, value in run.model.state_dict().items() if torch.equal(value, before[name])}
    assert still == {name for name in before if name.endswith("places")} != set()


def test_checkpoints_are_its_own(tmp_path: Path) -> None:
    run = Run.fresh(SLTrain).train(1)
    run.method.save(run.model, tmp_path)
    loaded = SLTrain(BUDGET).load(tmp_path, tiny_gpt2())
    for name, part in layers(run.model).items():
        assert torch.equal(layers(loaded)[name].weight, part.weight)
    with pytest.raises(ecospa.CheckpointError, match=r"cola\.json is missing"):
        CoLA(BUDGET).load(tmp_path, tiny_gpt2())


def test_half_precision_composes_too() -> None:
    model = sltrain().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = logits(model, inputs("llama-gqa")).float().square().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert next(iter(layers(model).values())).values.grad.dtype == torch.float32

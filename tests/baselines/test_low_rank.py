"""Low rank: the closest factors of every projection, ranks that meet the target, and checkpoints of what they make."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ecospa
from baselines.block_walk import matrix
from baselines.low_rank import LowRank, ranks_for, stored
from baselines.low_rank_linear import LowRankLinear, factorise, matrix_shapes, spectral_factors
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, Run
from tests.model_zoo import build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "llama-bias-tied", "qwen3", "bert", "roberta", "vit-no-bias", "deit", "timm-qk-norm")


def low_rank(kind: str, target: float | None = 0.5, scope: Any = "blocks", seed: int = 0) -> tuple[LowRank, Any]:
    model = build(kind, seed)
    method = LowRank(replace(BUDGET, target_size=target, target_scope=scope))
    assert method.prepare(model) is None
    return method, model


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
def test_the_factors_are_the_closest_of_their_rank_and_share_its_norm(shape: tuple[int, int]) -> None:
    weight = random(*shape)
    for rank in range(1, min(shape) + 1):
        outer, inner = spectral_factors(weight, rank)
        assert outer.shape == (shape[0], rank) and inner.shape == (rank, shape[1])
        # by the eigenvectors of the Gram matrix: the projection onto its largest ones
        directions = torch.linalg.eigh(weight @ weight.T).eigenvectors.flip(1)[:, :rank]
        assert (outer @ inner - directions @ directions.T @ weight).abs().max() < 1e-12
        assert (outer.T @ outer - inner @ inner.T).abs().max() < 1e-12  # both are sqrt(S)
        assert (outer.T @ outer - torch.diag(torch.diag(outer.T @ outer))).abs().max() < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_model_with_truncated_singular_values(kind: str) -> None:
    _, model = low_rank(kind)
    reference = build(kind)
    ranks = {name: part.rank for name, part in model.named_modules() if isinstance(part, LowRankLinear)}
    assert ranks
    for name, rank in ranks.items():
        weight = matrix(reference.get_submodule(name))
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        values[rank:] = 0
        weight.copy_(left @ torch.diag(values) @ right)
    expected = logits(reference, inputs(kind))
    assert (logits(model, inputs(kind)) - expected).abs().max() < 1e-9
    assert (logits(build(kind), inputs(kind)) - expected).abs().max() > 1e-3


@torch.no_grad()
def test_at_full_rank_nothing_is_lost() -> None:
    model = build("gpt2")
    factorise(model, {name: min(shape) for name, shape in matrix_shapes(model).items()})
    assert (logits(model, inputs("gpt2")) - logits(build("gpt2"), inputs("gpt2"))).abs().max() < 1e-10


@pytest.mark.parametrize("scope", ["blocks", "parameters"])
@pytest.mark.parametrize("target", [1.0, 0.9, 0.62, 0.5, 0.38])
@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "timm-vit"])
def test_it_lands_within_one_rank_above_the_target(kind: str, target: float, scope: Any) -> None:
    whole = build(kind)
    full = parameters(whole, scope)
    method, model = low_rank(kind, target, scope)
    over = parameters(model, scope) - round(target * full)
    assert 0 <= over < max(sum(shape) for shape in matrix_shapes(whole).values())
    assert over <= 0.01 * full
    assert method.history == [
        {"step": 0, "parameters": parameters(model), "block_parameters": parameters(model, "blocks"), "widths": {}}
    ]
    for name, part in model.named_modules():
        if isinstance(part, LowRankLinear):
            rows, columns = matrix_shapes(whole)[name]
            assert part.rank * (rows + columns) < rows * columns


def test_all_matrices_get_the_same_share_of_their_rank() -> None:
    shapes = {"a": (32, 96), "b": (32, 32), "c": (128, 32), "d": (20, 50)}
    whole = sum(math.prod(shape) for shape in shapes.values())
    seen = set()
    for goal in range(sum(sum(shape) for shape in shapes.values()), whole + 1, 37):
        ranks = ranks_for(shapes, goal)
        total = sum(stored(shape, ranks.get(name, min(shape))) for name, shape in shapes.items())
        assert 0 <= total - goal < 160
        shares = [(ranks[name] + extra) / min(shapes[name]) for name in ranks for extra in (-1, 1)]
        low, high = ([shares[i] for i in range(start, len(shares), 2)] for start in (0, 1))
        if low:
            assert max(low) <= min(high)  # one common share lies within one rank of every matrix
        seen.add(tuple(ranks.items()))
    assert len(seen) > 70


def test_the_smallest_total_that_reaches_the_goal_needs_no_more_ranks() -> None:
    shapes = {"a": (4, 6), "b": (6, 4), "c": (5, 5)}
    for goal in range(30, 73):
        ranks = ranks_for(shapes, goal)
        full = {name: ranks.get(name, min(shape)) for name, shape in shapes.items()}
        total = sum(stored(shapes[name], rank) for name, rank in full.items())
        sizes = {
            sum(stored(shape, rank) for shape, rank in zip(shapes.values(), choice, strict=True))
            for choice in itertools.product(range(1, 5), range(1, 5), range(1, 6))
        }
        assert goal <= total <= min(size for size in sizes if size >= goal) + 10


def test_without_a_target_the_rank_is_a_quarter() -> None:
    method, model = low_rank("gpt2", None)
    ranks = {part.rank for part in model.modules() if isinstance(part, LowRankLinear)}
    assert ranks == {8}
    assert parameters(model, "blocks") == parameters(build("gpt2"), "blocks") - 2 * (
        32 * (96 + 32 + 128 + 128) - 8 * (32 * 4 + 96 + 32 + 128 + 128)
    )
    assert method.history[0]["block_parameters"] == parameters(model, "blocks")


@pytest.mark.parametrize("scope", ["blocks", "parameters"])
def test_an_unreachable_target_is_refused(scope: Any) -> None:
    model = build("gpt2")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value is") as caught:
        LowRank(replace(BUDGET, target_size=0.01, target_scope=scope)).prepare(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    least = float(str(caught.value).split("value is ")[1].split(" ")[0]) + 1e-4
    LowRank(replace(BUDGET, target_size=least, target_scope=scope)).prepare(model)
    assert {part.rank for part in model.modules() if isinstance(part, LowRankLinear)} <= {1, 2}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_it_saves_and_loads_bitwise(kind: str, tmp_path: Path) -> None:
    method, model = low_rank(kind)
    method.save(model, tmp_path / "new")
    dense = build(kind, seed=4)
    loaded = method.load(tmp_path / "new", dense)
    assert loaded is dense and not loaded.training
    assert torch.equal(logits(loaded, inputs(kind)), logits(model, inputs(kind)))
    assert [*loaded.state_dict()] == [*model.state_dict()]
    assert parameters(loaded) == parameters(model)


@torch.no_grad()
def test_copies_and_dtypes_survive(tmp_path: Path) -> None:
    method, model = low_rank("gpt2")
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(again, inputs("gpt2")), logits(model, inputs("gpt2")))
    method.save(model.to(torch.bfloat16), tmp_path)
    loaded = method.load(tmp_path, build("gpt2"))
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


@torch.no_grad()
def test_generation_uses_its_cache() -> None:
    for kind in ("gpt2", "llama-gqa"):
        _, model = low_rank(kind)
        start = inputs(kind)["input_ids"][:, :4]
        texts = [
            model.generate(start, do_sample=False, max_new_tokens=6, min_new_tokens=6, use_cache=cache)
            for cache in (True, False)
        ]
        assert torch.equal(*texts)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    method, model = low_rank("gpt2")
    method.save(model, tmp_path)
    with pytest.raises(ecospa.CheckpointError, match="none of this model"):
        method.load(tmp_path, build("llama-gqa"))
    good = json.loads((tmp_path / "low_rank.json").read_text())
    name = next(iter(good["ranks"]))
    broken: list[Any] = [good | {"ranks": good["ranks"] | {name: wrong}} for wrong in (0, -1, 33, 1.0, "8", True)] + [
        good | {"ranks": []},
        good | {"dtype": "nn"},
        good | {"dtype": 3},
        {"ranks": good["ranks"]},
        [1],
    ]
    for content in broken:
        (tmp_path / "low_rank.json").write_text(json.dumps(content))
        with pytest.raises(ecospa.CheckpointError, match=r"low_rank\.json"):
            method.load(tmp_path, build("gpt2"))
    for other in (good["ranks"][name] + 1, good["ranks"][name] - 1):
        (tmp_path / "low_rank.json").write_text(json.dumps(good | {"ranks": good["ranks"] | {name: other}}))
        with pytest.raises(ecospa.CheckpointError, match="do not fit"):
            method.load(tmp_path, build("gpt2"))
    (tmp_path / "low_rank.json").write_text('{"ranks": ')
    with pytest.raises(ecospa.CheckpointError, match="damaged"):
        method.load(tmp_path, build("gpt2"))
    (tmp_path / "low_rank.json").write_text(json.dumps(good))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ecospa.CheckpointError, match="cannot be read"):
        method.load(tmp_path, build("gpt2"))
    for file in ("model.safetensors", "low_rank.json"):
        (tmp_path / file).unlink()
        with pytest.raises(ecospa.CheckpointError, match=r"missing|cannot be read"):
            method.load(tmp_path, build("gpt2"))


def test_frozen_projections_stay_frozen_and_modes_survive() -> None:
    model: Any = build("bert").train()
    model.bert.encoder.layer[0].intermediate.requires_grad_(False)
    LowRank(replace(BUDGET, target_size=0.5)).prepare(model)
    assert all(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.bert.encoder.layer[0].intermediate.parameters())
    assert all(p.requires_grad for p in model.bert.encoder.layer[0].output.parameters())


def test_it_draws_no_random_numbers() -> None:
    model = build("gpt2")
    state = torch.get_rng_state()
    LowRank(replace(BUDGET, target_size=0.5)).prepare(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_factor_trains() -> None:
    run = Run.fresh(LowRank)
    before = copy.deepcopy(run.model.state_dict())
    assert any(isinstance(part, LowRankLinear) for part in run.model.modules())
    run.train(2).finish()
    still = [name for name, value in run.model.state_dict().items() if torch.equal(value, before[name])]
    assert still == []


def test_nonsense_has_no_factors() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ecospa.ConfigError, match="NaN or infinite"):
            spectral_factors(torch.full((2, 3), value), 1)
    model = build("gpt2")
    name = "transformer.h.0.mlp.c_fc"
    for ranks, message in (({name: 0}, r"\[1, 32\]"), ({name: 33}, r"\[1, 32\]"), ({"lm_head": 3}, "no block")):
        with pytest.raises(ecospa.ConfigError, match=message):
            factorise(model, ranks)
    with pytest.raises(ecospa.UnsupportedModelError):
        LowRank(BUDGET).prepare(nn.Sequential(nn.Linear(3, 3)))

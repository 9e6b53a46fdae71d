"""Other measures of a pair's importance: each against its definition, written out entry by entry, and what it cuts."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
import torch

import baselines
import ecospa
from baselines.calibration import Calibration
from baselines.curve import SizeCurve
from baselines.method import TrainingMethod
from baselines.pair_metrics import (
    SEQUENCES_SEEN,
    AbsoluteGradient,
    attention_focus,
    attention_focuses,
    inner_activations,
    ranks,
    weight_norms,
)
from ecospa.scaled_importance import FirstOrderTaylor
from tests.baselines.runs import BUDGET, CALIBRATION, Run, assert_same_weights, finished, tiny_gpt2, tokens
from tests.model_zoo import build

NAMES = ("gradient", "taylor", "weight", "activation", "entropy", "random")


def matrices(model: Any, pair: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and gradients of the matrices of a pair of the tiny GPT-2, cut out of its fused weights by hand."""
    layer, kind = model.transformer.h[int(pair.split(".")[2])], pair.rpartition(".")[2]
    fused, proj = layer.attn.c_attn.weight, layer.attn.c_proj.weight
    width = 32
    if kind == "qk":
        cuts = [(fused, slice(0, width)), (fused, slice(width, 2 * width))]
        return [(w[:, part], w.grad[:, part]) for w, part in cuts]
    if kind == "vo":
        return [(fused[:, 2 * width :], fused.grad[:, 2 * width :]), (proj, proj.grad)]
    return [(w, w.grad) for w in (layer.mlp.c_fc.weight, layer.mlp.c_proj.weight)]


def backward(model: Any, step: int) -> None:
    model.zero_grad()
    model(input_ids=tokens(step), labels=tokens(step)).loss.backward()


@pytest.mark.parametrize(
    ("estimator", "entry"),
    [(AbsoluteGradient, lambda w, g: g.abs()), (FirstOrderTaylor, lambda w, g: (w * g).abs())],
)
def test_estimators_are_means_over_entries_steps_and_matrices(estimator: Any, entry: Any) -> None:
    model = tiny_gpt2()
    pairs = ecospa.coupled_pairs(model)
    found = estimator(model, pairs)
    wanted = {pair.name: 0.0 for pair in pairs}
    for step in range(2):
        backward(model, step)
        found.update()
        for name in wanted:
            means = [float(entry(w.detach().double(), g.double()).mean()) for w, g in matrices(model, name)]
            wanted[name] += sum(means) / len(means) / 2
    assert found.importances() == pytest.approx(wanted, rel=1e-5)


def test_weight_norms_are_root_mean_squares() -> None:
    model = tiny_gpt2()
    backward(model, 0)
    wanted = {
        pair.name: sum(float(w.detach().double().square().mean().sqrt()) for w, _ in matrices(model, pair.name)) / 2
        for pair in ecospa.coupled_pairs(model)
    }
    assert weight_norms(model) == pytest.approx(wanted, rel=1e-6)


def test_activations_are_what_flows_between_the_matrices() -> None:
    model = tiny_gpt2()
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    blocks = model.transformer.h
    for n, block in enumerate(blocks):
        block.attn.c_attn.register_forward_hook(lambda m, a, out, key=f"{n}.fused": seen[key].append(out))
        block.attn.c_proj.register_forward_pre_hook(lambda m, a, key=f"{n}.vo": seen[key].append(a[0]))
        block.mlp.c_proj.register_forward_pre_hook(lambda m, a, key=f"{n}.ffn": seen[key].append(a[0]))
    data = Calibration(CALIBRATION.batches[:3])
    found = inner_activations(model, data)
    assert model.training
    for number in range(len(blocks)):
        fused = torch.cat(seen[f"{number}.fused"]).double()
        query, key = (fused[..., part].square().mean().sqrt() for part in (slice(0, 32), slice(32, 64)))
        assert found[f"transformer.h.{number}.attn.qk"] == pytest.approx(float(query + key) / 2, rel=1e-6)
        for kind, name in (("vo", "attn.vo"), ("ffn", "mlp.ffn")):
            root = torch.cat(seen[f"{number}.{kind}"]).double().square().mean().sqrt()
            assert found[f"transformer.h.{number}.{name}"] == pytest.approx(float(root), rel=1e-6)


def test_only_the_first_sequences_are_looked_at() -> None:
    model = tiny_gpt2()
    many = Calibration(tuple({"input_ids": tokens(step)} for step in range(SEQUENCES_SEEN)))  # two in each
    few = Calibration((*many.batches[: SEQUENCES_SEEN // 2 - 1], {"input_ids": tokens(SEQUENCES_SEEN // 2 - 1)}))
    assert inner_activations(model, many) == inner_activations(model, few)
    part = Calibration((*few.batches[:-1], {"input_ids": tokens(99)}))
    assert inner_activations(model, part) != inner_activations(model, few)


def test_focus_is_zero_for_uniform_and_one_for_single_keys() -> None:
    causal = torch.tril(torch.ones(4, 4)) / torch.arange(1, 5).view(4, 1)
    assert attention_focus(causal.view(1, 1, 4, 4)) == pytest.approx(0.0, abs=1e-6)
    assert attention_focus(torch.tensor([[[[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]]])) == pytest.approx(
        1 - (1 + (-(0.25 * math.log2(0.25)) - 0.75 * math.log2(0.75))) / 2
    )
    sharp = torch.tensor([[[[1 - 1e-9, 1e-9]]]], dtype=torch.float64)
    assert attention_focus(sharp) == pytest.approx(1.0, abs=1e-6)
    assert attention_focus(torch.ones(1, 1, 1, 1)) == 0.0


def test_focus_of_a_model_is_that_of_its_attention_weights() -> None:
    reference, model = tiny_gpt2(), tiny_gpt2()
    reference.set_attn_implementation("eager")
    reference.eval()
    wanted: dict[str, list[float]] = {}
    with torch.no_grad():
        for batch in CALIBRATION.batches:
            attentions = reference(input_ids=batch["input_ids"], output_attentions=True).attentions
            for number, weights in enumerate(attentions):
                wanted.setdefault(f"transformer.h.{number}.attn", []).append(attention_focus(weights))
    found = attention_focuses(model, CALIBRATION)
    assert found == pytest.approx({name: sum(values) / len(values) for name, values in wanted.items()}, rel=1e-5)
    assert model.config._attn_implementation == "sdpa" and model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_ranks_are_shares_below() -> None:
    assert ranks({"a": 3.0, "b": 1.0, "c": 3.0, "d": 2.0}) == {"a": 0.5, "b": 0.0, "c": 0.5, "d": 0.25}
    assert ranks({}) == {}


class FisherOnTheCurve(TrainingMethod):
    """Fisher information through the path of the other measures."""

    def __init__(self, budget: Any) -> None:
        super().__init__(budget, SizeCurve(budget, estimator=ecospa.CoupledEstimator))


def test_with_fisher_information_it_is_ecospa() -> None:
    run = Run.fresh(FisherOnTheCurve).train(12).finish()
    assert run.losses == finished("ecospa").losses
    assert_same_weights(run.model, finished("ecospa").model)


@pytest.mark.parametrize("name", NAMES)
def test_the_least_important_pairs_are_cut_at_their_smallest_scores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One small event: the pairs that lose width rank lowest, and the index scores are those of ecospa."""
    seen: list[dict[str, float]] = []
    original = ecospa.CoupledSparsifier.plan

    def spy(self: Any, model: Any, importances: Any, goal: Any = None, scores: Any = None, pairs: Any = None) -> Any:
        assert scores is None  # index scores are those of ecospa
        seen.append(dict(importances))
        return original(self, model, importances, goal, scores, pairs)

    monkeypatch.setattr(ecospa.CoupledSparsifier, "plan", spy)
    budget = replace(BUDGET, target_size=0.9, curve="linear", width_multiple=1)  # the first event is not the landing
    run = Run.fresh(baselines.load(f"importance_{name}"), budget).train(4)
    (importances,) = seen
    whole = {pair.name: pair.width for pair in ecospa.coupled_pairs(tiny_gpt2())}
    assert set(importances) == set(whole)
    cut = {pair for pair, width in run.method.history[-1]["widths"].items() if width < whole[pair]}
    lowest = sorted(importances, key=lambda pair: importances[pair])
    assert cut and cut <= set(lowest[:2]), (cut, lowest)


def test_lots_differ_by_event_and_seed_alone() -> None:
    def widths(seed: int) -> list[Any]:
        history = Run.fresh(baselines.load("importance_random"), replace(BUDGET, seed=seed)).train(12).method.history
        return [entry["widths"] for entry in history]

    assert widths(1) == widths(1) != widths(2)


def test_entropy_takes_from_both_kinds_and_refuses_attention_without_weights() -> None:
    widths = finished("importance_entropy").method.history[-1]["widths"]
    whole = {pair.name: pair.width for pair in ecospa.coupled_pairs(tiny_gpt2())}
    kinds = {name.rpartition(".")[2] for name in whole if widths[name] < whole[name]}
    assert "ffn" in kinds and kinds & {"qk", "vo"}
    with pytest.raises(ecospa.UnsupportedModelError, match="importance_entropy is not defined for the timm_vit"):
        baselines.load("importance_entropy")(BUDGET).prepare(build("timm-vit"), CALIBRATION)

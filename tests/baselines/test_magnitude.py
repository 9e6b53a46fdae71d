"""Removals of each kind of magnitude pruning from a dense model, against a sort in plain Python."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import baselines
import ecospa
from baselines.entries import block_matrices, matrix_entries
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, CALIBRATION, Run, finished, tiny_gpt2
from tests.model_zoo import build


def masks_of(name: str, target: float | None = 0.5) -> tuple[Run, dict[str, torch.Tensor]]:
    """A one-shot method on an untrained GPT-2, and its masks; weights differ in scale between matrices."""
    model = tiny_gpt2()
    with torch.no_grad():
        for number, weight in enumerate(block_matrices(model).values()):
            weight.mul_(1 + number)
    budget = BUDGET if target is None else replace(BUDGET, target_size=target)
    run = Run.fresh(baselines.load(name), budget, model).finish()
    assert run.method.masks is not None
    return run, run.method.masks.removed


def weights_before() -> dict[str, torch.Tensor]:
    return {name: w.detach() * (1 + n) for n, (name, w) in enumerate(block_matrices(tiny_gpt2()).items())}


def test_globally_the_smallest_of_all_go() -> None:
    run, removed = masks_of("magnitude_global_one_shot")
    before = weights_before()
    whole = parameters(run.model, "blocks")
    count = whole - round(0.5 * whole)
    flat = sorted((abs(float(x)), name, at) for name, w in before.items() for at, x in enumerate(w.flatten()))
    gone = {(name, at) for _, name, at in flat[:count]}
    found = {(name, at) for name, mask in removed.items() for at in mask.flatten().nonzero().flatten().tolist()}
    assert found == gone
    shares = [float(mask.float().mean()) for mask in removed.values()]
    assert max(shares) - min(shares) > 0.2  # one ranking: large matrices lose less


def test_per_layer_every_matrix_loses_the_same_share() -> None:
    _, removed = masks_of("magnitude_one_shot")
    for name, weight in weights_before().items():
        size = weight.abs()
        assert bool((size[removed[name]].max() <= size[~removed[name]].min()).all())
    shares = [float(mask.float().mean()) for mask in removed.values()]
    assert max(shares) - min(shares) < 1e-3


def test_a_pattern_keeps_the_two_largest_of_four_inputs() -> None:
    run, removed = masks_of("magnitude_2_4", None)
    for name, weight in weights_before().items():  # Conv1D: (in, out)
        groups = weight.t().abs().reshape(-1, 4)
        mask = removed[name].t().reshape(-1, 4)
        assert bool((mask.sum(1) == 2).all())
        for row, gone in zip(groups[:50].tolist(), mask[:50].tolist(), strict=True):
            assert {i for i, g in enumerate(gone) if g} == set(sorted(range(4), key=lambda i: row[i])[:2])
    assert sum(int(mask.sum()) for mask in removed.values()) == matrix_entries(run.model) // 2


def test_gradual_global_follows_the_curve_and_ends_like_a_global_ranking() -> None:
    run = finished("magnitude_global")
    history = [entry["block_parameters"] for entry in run.method.history]
    assert history == [entry["block_parameters"] for entry in finished("magnitude").method.history]
    assert run.method.masks is not None
    shares = [float(mask.float().mean()) for mask in run.method.masks.removed.values()]
    assert max(shares) - min(shares) > 0.01


@pytest.mark.parametrize("name", ["magnitude_2_4", "wanda_2_4", "sparsegpt_2_4"])
def test_a_pattern_is_refused_where_it_does_not_divide(name: str) -> None:
    model = build("gpt2").float()
    model.transformer.h[1].mlp.c_proj.weight.data = torch.randn(126, 32)
    model.transformer.h[1].mlp.c_fc.weight.data = torch.randn(32, 126)
    model.transformer.h[1].mlp.c_fc.bias.data = torch.randn(126)
    kind = baselines.load(name)
    size = kind.only_size(model, "blocks")
    with pytest.raises(ecospa.ConfigError, match="126 inputs; the pattern 2:4 needs a multiple of 4"):
        kind(replace(BUDGET, target_size=size)).prepare(model, CALIBRATION)
    with pytest.raises(ecospa.ConfigError, match=r"target_size is 0\.8; the pattern 2:4 gives"):
        kind(replace(BUDGET, target_size=0.8)).prepare(tiny_gpt2(), CALIBRATION)

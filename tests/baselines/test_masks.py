"""Masked entries are gone in every respect: weight, gradient, optimizer state, and the norm that clipping sees."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import baselines
import ecospa
from baselines.masks import Masks
from tests.baselines.runs import Run, adamw, tiny_gpt2, tokens


def assert_gone(masks: Masks, model: Any, optimizer: Any) -> int:
    """Every removed entry is exactly zero in weight, gradient and state; the number of tensors looked at."""
    looked_at = 0
    for name, mask in masks.removed.items():
        parameter = model.get_parameter(name)
        held = [parameter.detach(), parameter.grad, *optimizer.state[parameter].values()]
        for value in held:
            if value is not None and value.shape == mask.shape:
                assert not value[mask].any(), name
                looked_at += 1
    return looked_at


@pytest.mark.parametrize("name", ["uncoupled", "magnitude"])
def test_masked_entries_stay_gone_through_adamw(name: str, tmp_path: Path) -> None:
    run = Run.fresh(baselines.load(name))
    counts = []
    for step in range(1, 13):
        run.train(step)
        assert_gone(run.method.masks, run.model, run.optimizer)  # type: ignore[attr-defined]
        counts.append(run.method.masks.count)  # type: ignore[attr-defined]
        if step == 7:
            run = run.resumed(tmp_path / name)
    assert counts == sorted(counts) and counts[3] > 0
    batch = tokens(50)
    run.model(input_ids=batch, labels=batch).loss.backward()
    masks = run.method.masks  # type: ignore[attr-defined]
    assert assert_gone(masks, run.model, run.optimizer) == 4 * len(masks.removed)
    live = {name: ~mask for name, mask in masks.removed.items()}
    assert all(run.model.get_parameter(name)[mask].any() for name, mask in live.items() if mask.any())


def test_an_optimizer_that_moves_everything_does_not_revive_masked_weights() -> None:
    run = Run.fresh(baselines.load("magnitude")).train(12)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.1)
    run.step = 13
    run.method.after_step(run.state())
    assert_gone(run.method.masks, run.model, run.optimizer)  # type: ignore[attr-defined]


def test_the_end_of_a_run_gives_the_model_back() -> None:
    run = Run.fresh(baselines.load("magnitude")).train(12).finish()
    batch = tokens(50)
    run.model(input_ids=batch, labels=batch).loss.backward()
    name, mask = next(iter(run.method.masks.removed.items()))  # type: ignore[attr-defined]
    assert run.model.get_parameter(name).grad[mask].any()


def test_aligned_masks_train_exactly_like_a_cut_model() -> None:
    cut, masked = tiny_gpt2(dtype=torch.float64), tiny_gpt2(dtype=torch.float64)
    optimizers = {id(model): adamw(model) for model in (cut, masked)}
    masks = Masks()
    for step in range(6):
        if step == 2:
            plan = ecospa.plan_shrink(cut, 0.5, target_scope="blocks", width_multiple=2)
            for pair in ecospa.coupled_pairs(masked):
                gone = torch.ones(pair.groups, pair.width, dtype=torch.bool).scatter_(1, plan.kept[pair.name], False)
                for axis in pair.axes:
                    entries = torch.zeros_like(masked.get_parameter(axis.parameter), dtype=torch.bool)
                    masks.remove(
                        masked, axis.parameter, entries.index_fill_(axis.axis, axis.index[gone].flatten(), True)
                    )
            masks.zero_weights(masked)
            masks.zero_state(masked, optimizers[id(masked)])
            ecospa.apply_plan(cut, plan, optimizers[id(cut)])
            assert masks.count == plan.parameters_before - plan.parameters_after
        for model in (cut, masked):
            loss = torch.nn.functional.cross_entropy(model(tokens(step)).logits.flatten(0, 1), tokens(step).flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)  # equal only if masked gradients are not counted
            optimizers[id(model)].step()
            optimizers[id(model)].zero_grad()
    with torch.no_grad():
        torch.testing.assert_close(cut(tokens(9)).logits, masked(tokens(9)).logits, rtol=0, atol=1e-11)


@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_a_state_holds_the_masks_bit_for_bit(shape: list[int], seed: int) -> None:
    entries = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    masks, again = Masks(), Masks()
    masks.removed["weight"] = entries
    again.load_state_dict(masks.state_dict())
    assert torch.equal(again.removed["weight"], entries) and again.count == int(entries.sum())


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="mask has shape"):
        Masks().remove(tiny_gpt2(), "transformer.h.0.mlp.c_fc.weight", torch.ones(3, 3, dtype=torch.bool))


def test_a_masked_model_can_be_copied() -> None:
    run = Run.fresh(baselines.load("uncoupled")).train(6)
    twin = copy.deepcopy(run.model)
    assert torch.equal(twin(tokens(1)).logits, run.model(tokens(1)).logits)

"""Effective parameters: setting the rest to anything at all changes nothing, and the count is that of loops."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import baselines
from baselines.effective import dead_indices, effective_parameters, useless_entries
from ecospa import PairKind, coupled_pairs
from ecospa.accounting import parameters
from tests.baselines.runs import finished
from tests.model_zoo import build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "qwen2", "qwen3", "bert", "vit", "timm-vit", "timm-qk-norm")


def random_masks(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """A third of all entries, and at random indices all of the left or of the right side of every pair."""
    generator = torch.Generator().manual_seed(seed)
    pairs = coupled_pairs(model)
    names = {axis.parameter for pair in pairs for axis in pair.axes}
    shapes = {name: model.get_parameter(name).shape for name in sorted(names)}
    masks = {name: torch.rand(shape, generator=generator) < 0.3 for name, shape in shapes.items()}
    for pair in pairs:
        for side in (pair.left, pair.right):
            chosen = torch.rand(pair.groups, pair.width, generator=generator) < 0.4
            for axis in side:
                masks[axis.parameter].index_fill_(axis.axis, axis.index[chosen].flatten(), True)
    return masks


def filled(model: nn.Module, zero: dict[str, Tensor], noise: dict[str, Tensor]) -> nn.Module:
    """A copy with zeros where `zero` says, and after that random numbers where `noise` says."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in zero.items():
            changed.get_parameter(name)[mask] = 0
        for name, mask in noise.items():
            changed.get_parameter(name)[mask] += torch.randn(int(mask.sum()), dtype=torch.float64)
    return changed


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_effect_may_be_anything(kind: str) -> None:
    model = build(kind)
    masks = random_masks(model, 5)
    useless = useless_entries(model, masks)
    extra = {name: mask & ~masks.get(name, torch.zeros_like(mask)) for name, mask in useless.items()}
    assert sum(int(mask.sum()) for mask in extra.values()) > 0
    masked, shaken = filled(model, masks, {}), filled(model, masks, extra)
    assert (logits(masked, inputs(kind)) - logits(shaken, inputs(kind))).abs().max() <= 1e-10
    kept = {name: ~mask for name, mask in useless.items()}
    assert (logits(masked, inputs(kind)) - logits(filled(model, masks, kept), inputs(kind))).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert"])
def test_the_count_is_that_of_loops(kind: str) -> None:
    model = build(kind)
    masks = random_masks(model, 6)
    gone = {name: mask.clone() for name, mask in masks.items()}
    for pair in coupled_pairs(model):
        half = pair.width // pair.unit
        for group in range(pair.groups):
            for first in range(half):
                unit = [first + part * half for part in range(pair.unit)]
                for side in (pair.left, pair.right):
                    modules = {axis.parameter.rpartition(".")[0] for axis in side}
                    if any(all(_empty(masks, a, group, unit) for a in side if a.parameter.startswith(f"{m}."))
                           for m in modules):  # fmt: skip
                        for axis in pair.axes:
                            for position in axis.index[group, unit].flatten().tolist():
                                gone[axis.parameter].select(axis.axis, position).fill_(True)
    count = sum(int(mask.sum()) for mask in gone.values())
    assert effective_parameters(model, masks) == (parameters(model) - count, parameters(model, "blocks") - count)


def _empty(masks: dict[str, Tensor], axis: object, group: int, unit: list[int]) -> bool:
    positions = axis.index[group, unit].flatten().tolist()  # type: ignore[attr-defined]
    return all(bool(masks[axis.parameter].select(axis.axis, at).all()) for at in positions)  # type: ignore[attr-defined]


def test_one_side_kills_both_and_a_bias_keeps_a_channel_alive() -> None:
    model = build("gpt2")
    pair = next(pair for pair in coupled_pairs(model) if pair.kind is PairKind.FFN)
    (weight, bias), (out,) = pair.left, pair.right
    masks = {
        axis.parameter: torch.zeros(model.get_parameter(axis.parameter).shape, dtype=torch.bool) for axis in pair.axes
    }
    masks[weight.parameter].select(weight.axis, 3).fill_(True)
    assert not dead_indices(model, pair, masks).any()  # its bias still feeds the next matrix
    masks[bias.parameter][3] = True
    masks[out.parameter].select(out.axis, 5).fill_(True)
    assert dead_indices(model, pair, masks).nonzero().tolist() == [[0, 3], [0, 5]]


@pytest.mark.slow
def test_methods_tell_stored_nonzero_and_effective_apart() -> None:
    uncoupled = finished("uncoupled")
    stored = parameters(uncoupled.model, "blocks")
    nonzero = uncoupled.method.nonzero_parameters(uncoupled.model)[1]
    effective = uncoupled.method.effective_parameters(uncoupled.model)[1]
    assert effective < nonzero < stored
    cut = finished("ecospa")
    assert cut.method.effective_parameters(cut.model) == cut.method.nonzero_parameters(cut.model)
    for name in sorted(baselines.methods()):
        if "gpt2" in baselines.load(name).architectures:
            run = finished(name)
            counts = run.method.effective_parameters(run.model), run.method.nonzero_parameters(run.model)
            assert all(0 < few <= many for few, many in zip(*counts, strict=True)), name

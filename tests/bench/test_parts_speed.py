"""Attention and feed-forward part of one block, cut to half, beside the whole ones and the ratio of their operations.

The last attention case keeps VO whole: kernels that want equal widths then compute on padded heads, and it shows what
that costs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import ecospa
from ecospa.accounting import flops_per_index
from ecospa.pairs import CoupledPair, unit_positions
from tests.bench.timing import BATCH, MODELS, SEQUENCE, interleaved

pytestmark = pytest.mark.bench
ATTENTION = (ecospa.PairKind.QK, ecospa.PairKind.VO)
FFN = (ecospa.PairKind.FFN,)
CASES = {"attention": (ATTENTION, ATTENTION), "FFN": (FFN, FFN), "attention, QK alone": (ATTENTION, ATTENTION[:1])}


def first_block(model: nn.Module, kinds: tuple[ecospa.PairKind, ...]) -> list[CoupledPair]:
    pairs = ecospa.coupled_pairs(model)
    return [pair for pair in pairs if pair.block == pairs[0].block and pair.kind in kinds]


def operations(model: nn.Module, kinds: tuple[ecospa.PairKind, ...]) -> int:
    """Every matrix of an attention or a feed-forward part belongs to its pairs."""
    return sum(pair.width * flops_per_index(model, pair, BATCH, SEQUENCE) for pair in first_block(model, kinds))


def cut_to_half(model: nn.Module, kinds: tuple[ecospa.PairKind, ...]) -> None:
    kept = {
        pair.name: unit_positions(pair, torch.arange(pair.units // 2).repeat(pair.groups, 1))
        for pair in first_block(model, kinds)
    }
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))


def part(kind: str, model: Any, kinds: tuple[ecospa.PairKind, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Attention or feed-forward part of the first block as a function of hidden states."""
    block = model.get_submodule(first_block(model, kinds)[0].block)
    if kinds == FFN:
        return block.mlp
    if kind == "gpt2":
        return lambda hidden: block.attn(hidden)[0]
    rotary = model.model.rotary_emb(torch.zeros(1), torch.arange(SEQUENCE)[None])
    return lambda hidden: block.self_attn(hidden, position_embeddings=rotary, attention_mask=None)[0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_part_cut_to_half_takes_what_its_operations_say(benchmark, tell, kind, case):
    whole_kinds, cut_kinds = CASES[case]
    dense = MODELS[kind]()
    half = copy.deepcopy(dense)
    cut_to_half(half, cut_kinds)
    flops = operations(half, whole_kinds) / operations(dense, whole_kinds)
    assert flops < 0.8
    hidden = torch.randn(BATCH, SEQUENCE, 384, requires_grad=True)
    run = {name: part(kind, model, whole_kinds) for name, model in (("dense", dense), ("half", half))}

    def backward(name: str) -> Callable[[], None]:
        return lambda: run[name](hidden).sum().backward()

    def read(name: str) -> Callable[[], None]:
        def no_gradients() -> None:
            with torch.no_grad():
                run[name](hidden)

        return no_gradients

    actions = {f"{name} {what.__name__}": what(name) for name in run for what in (backward, read)}
    seconds = interleaved(benchmark, actions, rounds=41)
    label = f"{kind}, {case} at half / dense"
    tell(
        f"{label}: forward and backward, over operations",
        seconds["half backward"], seconds["dense backward"], 1.6, promised=1.05, per=flops,
    )  # fmt: skip
    tell(f"{label}: forward, over operations", seconds["half read"], seconds["dense read"], 1.6, 1.10, per=flops)

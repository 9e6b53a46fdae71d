"""A swapped class asks the device for as many operations per decoded token as the stock class: no clock is needed.

Small models decode as fast as their operations are launched, so one operation more in every layer is time lost.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import StaticCache

import ecospa
from benchmarks.models.synthetic import build
from benchmarks.specs.synthetic import ModelShape
from benchmarks.timing.candidates import swap_classes
from benchmarks.timing.inference import prefill_cache
from ecospa.pairs import unit_positions

LAYERS = 2
VIEWS = frozenset(
    f"aten::{name}"
    for name in (
        "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "expand", "flatten", "narrow", "permute",
        "reshape", "select", "slice", "split", "split_with_sizes", "t", "transpose", "unsqueeze", "view",
    )
)  # fmt: skip
"""Operations that launch nothing: other numbers, same memory."""


def model_of(name: str) -> torch.nn.Module:
    shape = ModelShape(name, layers=LAYERS, width=64, heads=4, length=32, vocabulary=61)
    return build(shape).eval()


def operations(model: Any, static: bool) -> dict[str, int]:
    """Calls of every operation in one decode step, the second: the first may allocate."""
    tokens = torch.randint(1, 61, (2, 8), generator=torch.Generator().manual_seed(0))
    cache = StaticCache(config=model.config, max_cache_len=16) if static else None
    with torch.no_grad():
        cache, token = prefill_cache(model, {"input_ids": tokens}, cache)
        model(input_ids=token, past_key_values=cache, use_cache=True)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            model(input_ids=token, past_key_values=cache, use_cache=True)
    return {event.key: event.count for event in found.key_averages() if event.key.startswith("aten::")}


def launched(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name not in VIEWS}


@pytest.mark.parametrize("static", [True, False], ids=["static cache", "growing cache"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "llama_grouped"])
def test_a_swapped_class_launches_what_the_stock_class_does(name: str, static: bool) -> None:
    stock = model_of(name)
    swapped = copy.deepcopy(stock)
    swap_classes(swapped)
    found, expected = operations(swapped, static), operations(stock, static)
    assert launched(found) == launched(expected)
    assert sum(found.values()) <= sum(expected.values()), "views cost the interpreter's time"


@pytest.mark.parametrize("name", ["llama", "llama_grouped"])
def test_a_layer_whose_couples_were_cut_adds_the_gathers_of_its_rotary_tables_alone(name: str) -> None:
    stock = model_of(name)
    cut = copy.deepcopy(stock)
    pairs = [pair for pair in ecospa.coupled_pairs(cut) if pair.kind is not ecospa.PairKind.FFN]
    kept = {pair.name: unit_positions(pair, torch.arange(pair.units // 2).repeat(pair.groups, 1)) for pair in pairs}
    ecospa.apply_plan(cut, ecospa.SparsityPlan.build(cut, kept))
    found, expected = launched(operations(cut, True)), launched(operations(stock, True))
    tables = 2 * LAYERS  # cosines and sines, at the indices that a layer keeps
    assert found.pop("aten::index_select") == expected.pop("aten::index_select") + tables
    assert {name: found[name] for name in found if name != "aten::empty"} == {
        name: expected[name] for name in expected if name != "aten::empty"
    }

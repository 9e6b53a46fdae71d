"""A measurement ends when its ratio is known well enough, and CUDA graphs are replayed as torch asks for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.timing import compilation, interleaved
from benchmarks.timing.interleaved import interleave, is_narrow

ONES = [1.0] * 40


@pytest.mark.parametrize(
    ("ratios", "narrow"),
    [
        ([1.0] * 5, False),  # no interval of 95 % from five turns
        ([1.0] * 6, True),
        ([1.0] * 5 + [1.5], False),
        ([0.5, *[1.0] * 7, 2.0], True),  # of nine turns one may lie off on either side
        ([0.5, 0.5, *[1.0] * 6, 2.0], False),
        ([0.991, *[1.0] * 4, 1.009], True),
        ([0.989, *[1.0] * 4, 1.011], False),
    ],
)
def test_an_interval_is_narrow_by_its_order_statistics(ratios: list[float], narrow: bool) -> None:
    random.shuffle(ratios)
    assert is_narrow(ratios, ONES[: len(ratios)]) is narrow


def test_the_interval_holds_the_median_in_95_of_100_cases() -> None:
    draw = random.Random(0)
    for turns in (6, 9, 30):
        held = 0
        for _ in range(2000):
            values = sorted(draw.expovariate(1.0) for _ in range(turns))
            left_out = max(j for j in range(turns) if 2 * interleaved._binomial(j, turns) <= 0.05)
            held += values[left_out] <= 0.6931 <= values[-1 - left_out]
        assert held / 2000 > 0.94


def test_turns_end_when_enough_is_known() -> None:
    calls: list[int] = []
    told: list[int] = []

    def enough(seconds: Any) -> bool:
        told.append(len(seconds[0]))
        return len(seconds[0]) == 4

    found = interleave([calls.append, calls.append], 9, 2, "cpu", enough=enough)
    assert [len(own) for own in found] == [4, 4] and told == [1, 2, 3, 4]
    assert len(calls) == 2 * (2 + 4)
    assert [len(own) for own in interleave([calls.append], 3, 0, "cpu", enough=lambda seconds: False)] == [3]


def test_a_decode_step_becomes_a_cuda_graph_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    begun: list[int] = []
    memory = torch.zeros(1)

    def fake(step: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        asked.append(options)
        return lambda *arguments: memory.add_(1)  # a graph writes every result to the same place

    monkeypatch.setattr(torch, "compile", fake)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    on_cpu, on_gpu = (compilation.compiled_step(torch.relu, device) for device in ("cpu", "cuda"))
    assert "mode" not in asked[0] and asked[1]["mode"] == "reduce-overhead"
    assert all(options["fullgraph"] and options["dynamic"] is False for options in asked)
    first, second = on_gpu(), on_gpu()
    assert (first.item(), second.item(), len(begun)) == (1, 2, 2)
    assert on_cpu() is memory

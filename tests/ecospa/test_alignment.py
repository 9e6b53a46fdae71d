"""Alignment of matrix products: read off a trace, measured on a device, and part of the expected time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ecospa.roofline import Device, alignment_shares, known_device, step_seconds
from ecospa.trace import ALIGNED, StepTrace, trace_step

SHARES = ((2, 0.2), (8, 0.5), (16, 1.0))


def traced(inner: int, dtype: torch.dtype = torch.bfloat16) -> StepTrace:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=1, hidden_size=128, intermediate_size=inner, num_attention_heads=2, vocab_size=256
    )
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config).to(dtype)
    tokens = torch.empty(2, 64, dtype=torch.int64, device="meta")
    return trace_step(model, {"input_ids": tokens, "labels": tokens})


@pytest.mark.parametrize(
    ("inner", "dtype", "least"),
    [
        (341, torch.bfloat16, 2), (342, torch.bfloat16, 4), (344, torch.bfloat16, 16), (384, torch.bfloat16, ALIGNED),
        (341, torch.float32, 4), (352, torch.float32, ALIGNED),
    ],
)  # fmt: skip
def test_a_trace_knows_the_distance_between_rows(inner: int, dtype: torch.dtype, least: int) -> None:
    products = [operation for operation in traced(inner, dtype).operations if operation.flops]
    assert min(operation.alignment for operation in products) == least
    odd = [operation for operation in products if operation.alignment == least < ALIGNED]
    assert len(odd) == (9 if least < ALIGNED else 0)  # three products forwards, six backwards
    assert all(2 * 128 * 128 * inner == operation.flops for operation in odd)


def test_only_products_that_are_not_aligned_take_longer() -> None:
    device = Device("test", arithmetic=1e12, bandwidth=1e15)
    shared = replace(device, alignment_shares=SHARES)
    odd, even = traced(341), traced(384)
    assert step_seconds(even, shared) == pytest.approx(step_seconds(even, device), rel=1e-12)
    slow = sum(operation.flops for operation in odd.operations if operation.flops and operation.alignment == 2)
    more = step_seconds(odd, shared) - step_seconds(odd, device)
    assert more == pytest.approx(slow / 1e12 * (1 / 0.2 - 1), rel=1e-3)


def test_a_share_is_that_of_the_coarsest_alignment_that_holds() -> None:
    device = Device("test", 1e12, 1e11, alignment_shares=SHARES)
    assert [device.share(alignment) for alignment in (2, 4, 8, 16, 128)] == [0.2, 0.2, 0.5, 1.0, 1.0]
    assert Device("test", 1e12, 1e11).share(2) == 1.0


def test_the_table_knows_hopper_and_says_nothing_of_others() -> None:
    assert known_device("h100", torch.bfloat16).share(2) < 0.25
    assert known_device("h200", torch.bfloat16).share(2) == known_device("h100", torch.bfloat16).share(2)
    assert known_device("h100", torch.float32).share(4) == 1.0  # without matrix units rows start anywhere
    assert known_device("a100", torch.bfloat16).alignment_shares == ()


def test_shares_are_measured_at_every_alignment() -> None:
    found = alignment_shares(128, "cpu", torch.float32, arithmetic=1e9)
    assert [alignment for alignment, _ in found] == [4, 8, 16, 32, 64, 128]
    shares = [share for _, share in found]
    assert shares == sorted(shares) and 0 < shares[0] <= shares[-1] <= 1

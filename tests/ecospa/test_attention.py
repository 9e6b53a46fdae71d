"""One query at a time, with query/key and value widths apart: what fused attention gives, and no copy of the cache."""

import copy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import ecospa
from ecospa import attention
from ecospa.attention import attend_from_one
from tests.model_zoo import build, inputs

PAST = 9


def states(heads=4, groups=2, qk=6, vo=10):
    generator = torch.Generator().manual_seed(0)
    sizes = ((heads, 1, qk), (groups, PAST, qk), (groups, PAST, vo))
    return [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in sizes]


def mask_of(kind):
    """Left padding, another one per sequence: boolean, added, added per head, longer than the cache, or none."""
    allowed = torch.arange(PAST) >= torch.tensor([0, 2, 5])[:, None]
    lowest = torch.finfo(torch.float64).min
    added = torch.zeros(3, PAST, dtype=torch.float64).masked_fill(~allowed, lowest)[:, None, None]
    return {
        "none": None,
        "boolean": allowed[:, None, None],
        "added": added,
        "per head": added + torch.linspace(0, 1, 4, dtype=torch.float64)[None, :, None, None] * torch.arange(PAST),
        "longer": torch.nn.functional.pad(added, (0, 4)),
    }[kind]


@pytest.mark.parametrize("kind", ["none", "boolean", "added", "per head", "longer"])
@pytest.mark.parametrize("groups", [2, 4])
def test_one_query_attends_as_fused_attention_does(kind, groups):
    heads = 4
    query, key, value = states(heads, groups)
    mask = mask_of(kind)
    given = None if mask is None else mask[..., :PAST]
    wanted = scaled_dot_product_attention(query, key, value, given, scale=0.3, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(attend_from_one(query, key, value, mask, 0.3), wanted, rtol=1e-12, atol=1e-12)


def test_half_precision_keeps_its_dtype_and_sums_in_single():
    query, key, value = (state.to(torch.bfloat16) for state in states())
    found = attend_from_one(query, key, value, None, 0.3)
    exact = attend_from_one(*(state.double() for state in (query, key, value)), None, 0.3)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "qwen3"])
@pytest.mark.parametrize("narrow", ["qk", "vo"])
def test_writing_copies_no_cache_to_pad_it(kind, narrow, monkeypatch):
    model = build(kind).eval()
    pairs = [pair for pair in ecospa.coupled_pairs(model) if pair.name.endswith(narrow)]
    kept = {pair.name: ecospa.pairs.unit_positions(pair, torch.arange(2).repeat(pair.groups, 1)) for pair in pairs}
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))
    tokens = inputs(kind)["input_ids"]
    padded = []
    original = attention.pad_to_equal

    def counted(query, key, value):
        padded.append(query.shape[2])
        return original(query, key, value)

    monkeypatch.setattr(attention, "pad_to_equal", counted)
    with torch.no_grad():
        whole = model(tokens).logits
        first = model(tokens[:, :-1], use_cache=True)
        last = model(tokens[:, -1:], past_key_values=copy.copy(first.past_key_values), use_cache=True)
    torch.testing.assert_close(last.logits[:, -1], whole[:, -1], rtol=1e-12, atol=1e-12)
    assert padded and min(padded) > 1

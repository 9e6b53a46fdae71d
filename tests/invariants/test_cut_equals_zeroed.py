"""Invariant 1: a cut model computes what the dense model with those entries set to zero computes, in float64."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ecospa
from tests.model_zoo import ZOO, build, inputs, logits, random_plan, token_by_token, zeroed

TEXT = [kind for kind, sample in ZOO.items() if not sample.image]
CAUSAL = [kind for kind, sample in ZOO.items() if sample.causal]
TOLERANCE = 1e-10
PROPERTY = settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def cut_and_zeroed(kind, seed):
    model = build(kind)
    plan = random_plan(model, seed)
    reference = zeroed(model, plan)
    ecospa.apply_plan(model, plan)
    return model, reference, plan


@pytest.mark.parametrize("kind", ZOO)
@PROPERTY
@given(seed=st.integers(0, 10_000))
@torch.no_grad()
def test_logits_equal(kind, seed):
    model, reference, plan = cut_and_zeroed(kind, seed)
    batch = inputs(kind, seed)
    result, expected = logits(model, batch), logits(reference, batch)
    assert result.dtype == torch.float64
    assert (result - expected).abs().max() <= TOLERANCE
    assert sum(p.numel() for p in model.parameters()) == plan.parameters_after


@pytest.mark.parametrize("kind", TEXT)
@torch.no_grad()
def test_logits_equal_under_left_padding(kind):
    model, reference, _ = cut_and_zeroed(kind, 3)
    batch = inputs(kind)
    mask = torch.ones_like(batch["input_ids"])
    mask[0, :4] = 0
    result = logits(model, batch | {"attention_mask": mask})
    expected = logits(reference, batch | {"attention_mask": mask})
    seen = mask.bool()
    assert (result - expected)[seen].abs().max() <= TOLERANCE


@pytest.mark.parametrize("kind", CAUSAL)
@torch.no_grad()
def test_cache_equals_no_cache(kind):
    model, reference, _ = cut_and_zeroed(kind, 5)
    tokens = inputs(kind)["input_ids"]
    whole = model(tokens, use_cache=False).logits
    assert (token_by_token(model, tokens) - whole).abs().max() <= TOLERANCE
    assert (whole - reference(tokens, use_cache=False).logits).abs().max() <= TOLERANCE


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("mode", ["greedy", "sample", "beams"])
@torch.no_grad()
def test_generate_equals_zeroed(kind, mode):
    model, reference, _ = cut_and_zeroed(kind, 7)
    tokens = inputs(kind)["input_ids"]
    options = {"greedy": {}, "sample": {"do_sample": True, "top_k": 8}, "beams": {"num_beams": 3}}[mode]
    options |= {"max_new_tokens": 6, "min_new_tokens": 6, "attention_mask": torch.ones_like(tokens)}
    texts = []
    for network, cached in ((model, True), (model, False), (reference, True)):
        torch.manual_seed(11)
        texts.append(network.generate(tokens, use_cache=cached, **options))
    assert torch.equal(texts[0], texts[1])
    assert torch.equal(texts[0], texts[2])


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "qwen3", "mistral"])
@torch.no_grad()
def test_static_cache_generates_the_same(kind):
    model, _, _ = cut_and_zeroed(kind, 9)
    tokens = inputs(kind)["input_ids"]
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "attention_mask": torch.ones_like(tokens), "do_sample": False}
    assert torch.equal(
        model.generate(tokens, **options), model.generate(tokens, cache_implementation="static", **options)
    )


@pytest.mark.parametrize("kind", [kind for kind in ZOO if not kind.startswith("timm")])
@torch.no_grad()
def test_eager_equals_sdpa_and_attentions_are_returned(kind):
    model, _, _ = cut_and_zeroed(kind, 13)
    batch = inputs(kind)
    fused = logits(model, batch)
    model.set_attn_implementation("eager")
    output = model(**batch, output_attentions=True)
    # transformers' eager softmax is float32 in some families
    assert (output.logits - fused).abs().max() <= 1e-4
    assert len(output.attentions) == 2
    assert all(torch.allclose(a.sum(-1), torch.ones((), dtype=a.dtype), atol=1e-5) for a in output.attentions)
    assert all(a.shape[1] == 4 for a in output.attentions)


def test_softmax_scale_is_the_original_one():
    """The control of the invariant: with the scale of the new width the logits would differ."""
    model, reference, _ = cut_and_zeroed("timm-vit", 2)
    batch = inputs("timm-vit")
    qk = model.blocks[0].attn.geometry.qk_width
    assert qk < 8
    for block in model.blocks:
        block.attn.geometry = replace(block.attn.geometry, head_width=block.attn.geometry.qk_width)
    assert (logits(model, batch) - logits(reference, batch)).abs().max() > 1e-6

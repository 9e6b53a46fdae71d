"""A cut model, padded with zeros, is a model of its own class that computes the same."""

from __future__ import annotations

import pytest
import torch

import ecospa
from ecospa.padding import padded, padded_shape
from ecospa.surgery import add_biases, keep_heads
from tests.model_zoo import ZOO, build, inputs, logits, random_plan, randomised

KINDS = [kind for kind in ZOO if not kind.startswith("timm")]


def cut(kind: str, seed: int = 3) -> torch.nn.Module:
    model = build(kind)
    ecospa.apply_plan(model, random_plan(model, seed))
    return model


def in_float64(model: torch.nn.Module) -> torch.nn.Module:
    """Norms of transformers, which cast to float32, replaced as the zoo does it; no parameter changes."""
    values = {name: value.clone() for name, value in model.state_dict().items()}
    randomised(model).load_state_dict(values)
    return model


@pytest.mark.parametrize("fit", ["nearest", "original"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_model_is_the_same_function_in_float64(kind: str, fit: str) -> None:
    model = cut(kind)
    wide = in_float64(padded(model, fit))
    assert type(wide) is type(ZOO[kind].build()) and not hasattr(wide.config, "ecospa")
    assert ecospa.accounting.parameters(wide) > ecospa.accounting.parameters(model)
    with torch.no_grad():
        expected, found = logits(model, inputs(kind)), logits(wide, inputs(kind))
    assert (expected - found).abs().max() <= 1e-12


def test_nearest_takes_the_widest_layer_and_original_the_dense_width() -> None:
    model = build("llama-gqa")
    names = [pair.name for pair in ecospa.coupled_pairs(model) if pair.kind is ecospa.PairKind.FFN]
    kept = {name: torch.arange(width)[None] for name, width in zip(names, (12, 20), strict=True)}
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))
    assert [padded_shape(model, fit).config.intermediate_size for fit in ("nearest", "original")] == [20, 40]
    assert padded(model).model.layers[0].mlp.up_proj.weight[12:].count_nonzero() == 0


def test_key_value_heads_that_every_layer_lost_are_not_padded() -> None:
    model = build("llama-gqa")
    keep_heads(model, {f"model.layers.{layer}.self_attn": torch.tensor([1]) for layer in (0, 1)})
    wide = in_float64(padded(model))
    assert (wide.config.num_key_value_heads, wide.config.num_attention_heads) == (1, 2)
    assert torch.allclose(logits(wide, inputs("llama-gqa")), logits(model, inputs("llama-gqa")), atol=1e-12)


def test_heads_that_one_layer_lost_come_back_as_zeros() -> None:
    model = build("llama-gqa")
    keep_heads(model, {"model.layers.0.self_attn": torch.tensor([1])})
    wide = in_float64(padded(model))
    assert wide.config.num_key_value_heads == 2
    assert torch.allclose(logits(wide, inputs("llama-gqa")), logits(model, inputs("llama-gqa")), atol=1e-12)


def test_added_biases_find_a_place_where_the_class_has_one() -> None:
    model = cut("llama-gqa")
    add_biases(model, {"model.layers.0.mlp.down_proj": torch.ones(32, dtype=torch.float64)})
    wide = in_float64(padded(model))
    assert torch.allclose(logits(wide, inputs("llama-gqa")), logits(model, inputs("llama-gqa")), atol=1e-12)


def test_a_model_of_timm_is_refused() -> None:
    with pytest.raises(ecospa.UnsupportedModelError, match="no transformers model"):
        padded(cut("timm-vit"))

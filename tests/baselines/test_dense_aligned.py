"""The aligned dense control: the dense model's function and training, at widths that are multiples."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import ecospa
from baselines.dense_aligned import DenseAligned, pad_feed_forward
from ecospa.pairs import PairKind
from tests.baselines.runs import BUDGET
from tests.model_zoo import build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "llama-bias-tied", "qwen3", "bert", "roberta", "vit-no-bias", "deit", "timm-qk-norm")
MULTIPLE = 48
"""No hidden width of the zoo is a multiple of it."""


def hidden(model: nn.Module) -> set[int]:
    return {pair.width for pair in ecospa.coupled_pairs(model) if pair.kind is PairKind.FFN}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_padding_keeps_the_function(kind: str) -> None:
    dense, aligned = build(kind), build(kind)
    assert all(width % MULTIPLE for width in hidden(dense))
    assert pad_feed_forward(aligned, MULTIPLE)
    assert all(width % MULTIPLE == 0 for width in hidden(aligned))
    batch = inputs(kind)
    assert (logits(aligned, batch) - logits(dense, batch)).abs().max() < 1e-13


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_it_trains_as_the_dense_model_does(kind: str) -> None:
    dense, aligned = build(kind), build(kind)
    pad_feed_forward(aligned, MULTIPLE)
    batch = inputs(kind)
    for model in (dense, aligned):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            logits(model, batch).log_softmax(-1)[..., 0].mean().neg().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    trained = dict(aligned.named_parameters())
    for name, value in dense.named_parameters():
        wide = trained[name]
        assert torch.allclose(wide[tuple(map(slice, value.shape))], value, rtol=0, atol=1e-9), name
        assert wide.count_nonzero() <= value.numel(), name


def test_padding_that_is_not_zero_changes_the_function() -> None:
    dense, aligned = build("llama-gqa"), build("llama-gqa")
    pad_feed_forward(aligned, MULTIPLE)
    with torch.no_grad():
        for name, value in aligned.named_parameters():
            if "mlp" in name:
                value.add_(0.5)
        dense_values = dict(dense.named_parameters())
        for name, value in aligned.named_parameters():
            own = dense_values[name]
            value[tuple(map(slice, own.shape))] = own
    batch = inputs("llama-gqa")
    assert (logits(aligned, batch) - logits(dense, batch)).abs().max() > 1e-4


def test_an_aligned_model_stays_as_it_is() -> None:
    model = build("gpt2")
    before = {name: id(value) for name, value in model.named_parameters()}
    assert pad_feed_forward(model, 64) == {}
    assert before == {name: id(value) for name, value in model.named_parameters()}


def test_the_feed_forward_layer_of_galores_llama_is_padded_to_the_next_tile() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        config = LlamaConfig(
            hidden_size=2048, intermediate_size=5461, num_hidden_layers=1, num_attention_heads=32, vocab_size=32
        )
        model = LlamaForCausalLM(config)
    assert set(pad_feed_forward(model, 64).values()) == {43}
    assert hidden(model) == {5504}
    assert (model.model.layers[0].mlp.down_proj.in_features, model.model.layers[0].mlp.up_proj.out_features) == (
        5504, 5504,
    )  # fmt: skip


@torch.no_grad()
def test_it_saves_and_loads(tmp_path: Path) -> None:
    method, model = DenseAligned(replace(BUDGET, width_multiple=MULTIPLE)), build("bert")
    dense = copy.deepcopy(model)
    assert method.prepare(model) is None
    method.save(model, tmp_path)
    loaded = method.load(tmp_path, build("bert", seed=1))
    batch = inputs("bert")
    assert torch.equal(logits(loaded, batch), logits(model.eval(), batch))
    assert method.history[0]["parameters"] > sum(value.numel() for value in dense.parameters())

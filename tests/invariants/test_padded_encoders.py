"""Invariant 1 for BERT with its task heads: padding and pairs of texts change nothing about exactness, in float64."""

import copy

import pytest
import torch

import ecospa
from benchmarks.models.encoder import build_encoder
from benchmarks.specs.encoder import EncoderSpec
from tests.model_zoo import random_plan, removed_masks, zeroed

SPEC = EncoderSpec(layers=2, width=32, heads=4, vocabulary=61, positions=20, dropout=0.0)
TOLERANCE = 1e-10


def encoder(outputs, attention="sdpa"):
    model = build_encoder(SPEC, outputs, seed=0).double().eval()
    model.set_attn_implementation(attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def batch(extra=0):
    """Three pairs of texts of unequal length, with `extra` positions of padding behind the longest."""
    generator = torch.Generator().manual_seed(1)
    lengths, first = torch.tensor([9, 14, 5]), torch.tensor([4, 6, 2])
    places = torch.arange(14 + extra)
    inputs = torch.zeros(3, 14 + extra, dtype=torch.long)
    inputs[:, :14] = torch.randint(1, 61, (3, 14), generator=generator)
    mask = (places < lengths[:, None]).long()
    types = ((places >= first[:, None]) & (places < lengths[:, None])).long()
    return {"input_ids": inputs * mask, "attention_mask": mask, "token_type_ids": types}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("outputs", [3, 1, None])
@torch.no_grad()
def test_a_cut_encoder_is_the_zeroed_one(outputs, attention):
    model = encoder(outputs, attention)
    plan = random_plan(model, 4)
    reference = zeroed(model, plan)
    before = model(**batch()).logits
    ecospa.apply_plan(model, plan)
    result, expected = model(**batch()).logits, reference(**batch()).logits
    seen = slice(None) if outputs is not None else batch()["attention_mask"].bool()
    assert (result - expected)[seen].abs().max() <= TOLERANCE
    assert (result - before)[seen].abs().max() > 1e-3  # the cut was no empty one


@pytest.mark.parametrize("outputs", [3, None])
@torch.no_grad()
def test_padding_behind_the_text_changes_nothing_after_a_cut(outputs):
    model = encoder(outputs)
    ecospa.apply_plan(model, random_plan(model, 5))
    short, long = model(**batch()).logits, model(**batch(extra=6)).logits
    if outputs is None:
        seen = batch()["attention_mask"].bool()
        short, long = short[seen], long[:, :14][seen]
    assert (short - long).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ("outputs", "labels"), [(3, torch.tensor([2, 0, 1])), (None, torch.tensor([[1, 3], [2, 9], [0, 4]]))]
)
def test_training_after_the_cut_is_training_the_masked_encoder(outputs, labels):
    dense = encoder(outputs)
    plan = random_plan(dense, 6)
    masks, cut = removed_masks(dense, plan), copy.deepcopy(dense)
    ecospa.apply_plan(cut, plan)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2) for model in (dense, cut)]
    for _ in range(4):
        for name, parameter in dense.named_parameters():
            parameter.data.mul_(masks[name])
        for model, optimizer in zip((dense, cut), optimizers, strict=True):
            model(**batch(), labels=labels).loss.backward()
            if model is dense:
                for name, parameter in dense.named_parameters():
                    parameter.grad.mul_(masks[name])
            optimizer.step()
            optimizer.zero_grad()
    for name, parameter in dense.named_parameters():
        parameter.data.mul_(masks[name])
    seen = slice(None) if outputs is not None else batch()["attention_mask"].bool()
    with torch.no_grad():
        assert (dense(**batch()).logits - cut(**batch()).logits)[seen].abs().max() <= 1e-9

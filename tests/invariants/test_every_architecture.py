"""Every architecture that a file of `ecospa/families` knows: exact, saved, trained on; a new file is tested by itself.

The models are tiny and random, in true float64. One architecture of every family is cut in the ordinary tests; others,
and what else there is to test, run in the slow ones.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn

import ecospa
from ecospa.exactness import check_block
from ecospa.families import families, known_family, transformer_blocks
from ecospa.merged import merge_projections
from ecospa.stock import foreign_parts
from ecospa.surgery import keep_heads
from tests.architectures import RANDOM, RECENT, SPECIAL, known_classes, known_folders, model_class, representatives
from tests.model_zoo import random_plan, removed_masks
from tests.tiny_models import tiny_batch, tiny_model, tiny_output, true_float64

KNOWN = known_classes()
FEW = list(representatives(KNOWN))
EVERY = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in KNOWN]
TOLERANCE = 1e-10


def built(name: str, dtype: torch.dtype = torch.float64) -> Any:
    model = tiny_model(model_class(name), dtype, **SPECIAL.get(name, {}))
    if name in RECENT:
        try:
            ecospa.coupled_pairs(model)
        except ecospa.UnsupportedModelError as error:
            assert "release of transformers" in str(error)
            pytest.skip("refused in this release of transformers")
    return model


def zeroed(model: nn.Module, plan: ecospa.SparsityPlan) -> tuple[Any, dict[str, torch.Tensor]]:
    dense, masks = copy.deepcopy(model), removed_masks(model, plan)
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            parameter.mul_(masks[name])
    return dense, masks


def cut_and_zeroed(name: str, seed: int) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    model = built(name)
    plan = random_plan(model, seed)
    reference, masks = zeroed(model, plan)
    ecospa.apply_plan(model, plan)
    widths = {pair.name: pair.width for pair in ecospa.coupled_pairs(model)}
    attentions = [name.removesuffix("qk") for name in widths if name.endswith(".qk")]
    assert any(widths[f"{place}qk"] != widths[f"{place}vo"] for place in attentions)  # not equal by chance
    return model, reference, masks


def test_every_family_of_transformers_is_here() -> None:
    assert {family.name for family in families() if known_folders(family)} == set(KNOWN.values())


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_a_cut_model_equals_the_zeroed_one(name: str) -> None:
    whole = built(name)
    batch = tiny_batch(whole)
    model, reference, _ = cut_and_zeroed(name, 1)
    result, expected = tiny_output(model, batch), tiny_output(reference, batch)
    assert result.dtype == torch.float64
    assert (result - expected).abs().max() <= TOLERANCE
    assert (result - tiny_output(whole, batch)).abs().max() > 1e-3
    again = random_plan(model, 9)
    reference, _ = zeroed(model, again)
    ecospa.apply_plan(model, again)
    assert (tiny_output(model, batch) - tiny_output(reference, batch)).abs().max() <= TOLERANCE, "a second cut"


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
@torch.no_grad()
def test_every_implementation_of_attention_and_padding(name: str) -> None:
    model, reference, _ = cut_and_zeroed(name, 4)
    batch = tiny_batch(model)
    if "input_ids" in batch:
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        batch["attention_mask"][0, :4] = 0
    for network in (model, reference):
        network.set_attn_implementation("eager")
    seen = batch["attention_mask"].bool() if "attention_mask" in batch and "decoder_input_ids" not in batch else ...
    result, expected = tiny_output(model, batch), tiny_output(reference, batch)
    seen = seen if result.shape[:2] == batch.get("input_ids", result).shape[:2] else ...
    assert (result - expected)[seen].abs().max() <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@torch.no_grad()
def test_generated_texts_are_the_same_with_and_without_cache(name: str) -> None:
    model, reference, _ = cut_and_zeroed(name, 5)
    batch = {key: value for key, value in tiny_batch(model).items() if key != "decoder_input_ids"}
    if not model.can_generate():
        return
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    for beams, cached in ((1, True), (1, False), (3, True)):
        with true_float64():
            mine, theirs = (
                network.generate(**batch, use_cache=cached, num_beams=beams, do_sample=False, **options)
                for network in (model, reference)
            )
        assert torch.equal(mine.sequences, theirs.sequences)
        for one, other in zip(mine.logits, theirs.logits, strict=True):
            assert (one - other).abs().max() <= 1e-5  # generate() hands logits out in float32


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KNOWN if name not in RANDOM])
@torch.no_grad()
def test_a_round_trip_is_bitwise(name: str, tmp_path: Any) -> None:
    model = built(name, torch.float32)
    kept = dict(random_plan(model, 6).kept)
    # grouped products of experts want widths of whole 16 bytes, and say so otherwise
    kept |= {pair: torch.arange(24)[None] for pair in kept if pair.endswith("experts.ffn")}
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))
    ecospa.save_pretrained(model, tmp_path)
    again, batch = ecospa.from_pretrained(tmp_path), tiny_batch(model)
    assert type(again) is type(model)
    assert torch.equal(tiny_output(again, batch), tiny_output(model, batch))
    assert ecospa.surgery.shape_of(again) == ecospa.surgery.shape_of(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_training_after_the_cut_is_training_the_masked_model(name: str) -> None:
    model = built(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step(model, optimizer, 0)
    plan = random_plan(model, 7)
    reference, masks = zeroed(model, plan)
    theirs = torch.optim.AdamW(reference.parameters(), lr=1e-3)
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    ecospa.apply_plan(model, plan, optimizer)
    for seed in range(1, 4):
        step(model, optimizer, seed)
        step(reference, theirs, seed, masks)
    with torch.no_grad():
        batch = tiny_batch(model, 9)
        # a gradient that is rounding alone, such as that of a bias of keys, AdamW scales up
        assert (tiny_output(model, batch) - tiny_output(reference, batch)).abs().max() <= 1e-7


def step(model: Any, optimizer: Any, seed: int, masks: dict[str, torch.Tensor] | None = None) -> None:
    with true_float64():
        tiny_output(model, tiny_batch(model, seed)).square().mean().backward()
    for name, parameter in model.named_parameters() if masks else ():
        if parameter.grad is not None:
            parameter.grad.mul_(masks[name])
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        for name, parameter in model.named_parameters() if masks else ():
            parameter.mul_(masks[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_every_part_of_a_block_is_known_and_a_copy_of_it_runs_alone(name: str) -> None:
    model = built(name, torch.float32)
    for place, block in transformer_blocks(model).items():
        assert foreign_parts(block, known_family(block).stock) == {}
        assert check_block(place, block, ecospa.apply_plan).problem == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@torch.no_grad()
def test_merged_projections_are_the_same_function(name: str) -> None:
    model, batch = cut_and_zeroed(name, 8)[0], tiny_batch(built(name))
    before = tiny_output(model, batch)
    merge_projections(model)
    assert (tiny_output(model, batch) - before).abs().max() <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@torch.no_grad()
def test_whole_heads_leave_or_are_refused(name: str) -> None:
    model = built(name)
    pairs = [pair for pair in ecospa.coupled_pairs(model) if pair.kind == "vo" and pair.groups > 1]
    kept = {pair.module: torch.arange(1, pair.groups) for pair in pairs}
    dense = copy.deepcopy(model)
    for pair in pairs:
        for axis in pair.axes:
            dense.get_parameter(axis.parameter).index_fill_(axis.axis, axis.index[0].flatten(), 0)
    if reason := known_family(next(iter(transformer_blocks(model).values()))).joined_heads:
        with pytest.raises(ecospa.UnsupportedModelError, match=re.escape(reason)):
            keep_heads(model, kept)
        return
    keep_heads(model, kept)
    batch = tiny_batch(model)
    assert (tiny_output(model, batch) - tiny_output(dense, batch)).abs().max() <= TOLERANCE

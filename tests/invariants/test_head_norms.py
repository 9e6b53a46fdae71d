"""Norms of queries and keys: cut equals zeroed, although behind a LayerNorm a removed entry is not zero."""

import copy

import pytest
import timm
import torch
from torch import nn

import ecospa
from ecospa.families import timm_vit
from ecospa.surgery import keep_heads
from tests.model_zoo import random_plan, randomised, removed_masks, zeroed

SIZES = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 8, "patch_size": 4, "num_classes": 5}
KINDS = ["layernorm", "rmsnorm", "layernorm without weights", "torch rms norm", "layernorm beside rms norm", "one norm"]


def model_of(kind):
    torch.manual_seed(0)
    norm = "rmsnorm" if kind == "rmsnorm" else None
    model = timm.create_model("vit_tiny_patch16_224", qk_norm=True, norm_layer=norm, **SIZES)
    for block in model.blocks:
        attention = block.attn
        if kind == "layernorm without weights":
            attention.q_norm, attention.k_norm = (nn.LayerNorm(8, elementwise_affine=False) for _ in range(2))
        if kind == "torch rms norm":
            attention.q_norm, attention.k_norm = nn.RMSNorm(8), nn.RMSNorm(8)
        if kind == "layernorm beside rms norm":
            attention.k_norm = nn.RMSNorm(8)
        if kind == "one norm":
            attention.q_norm = nn.Identity()
    return randomised(model)


def images(seed=1):
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cut_model_equals_the_zeroed_one(kind, fused):
    for seed in range(3):
        model = model_of(kind)
        for block in model.blocks:
            block.attn.fused_attn = fused
        plan = random_plan(model, seed)
        reference, whole = zeroed(model, plan), model(images())
        ecospa.apply_plan(model, plan)
        assert (model(images()) - reference(images())).abs().max() <= 1e-12
        assert (model(images()) - whole).abs().max() > 1e-2
        again = random_plan(model, seed + 10)
        reference = zeroed(model, again)
        ecospa.apply_plan(model, again)
        assert (model(images()) - reference(images())).abs().max() <= 1e-12, "the second cut adds to the first"


@torch.no_grad()
def test_whole_heads_leave_with_what_their_removed_entries_added():
    model = model_of("layernorm")
    ecospa.apply_plan(model, random_plan(model, 4))
    dense = copy.deepcopy(model)
    for block in dense.blocks:  # a head whose output is not read is no head
        width = block.attn.geometry.vo_width
        block.attn.proj.weight[:, width : 2 * width] = 0
    keep_heads(model, {f"blocks.{number}.attn": torch.tensor([0, 2, 3]) for number in range(2)})
    assert (model(images()) - dense(images())).abs().max() <= 1e-12


@pytest.mark.parametrize("kind", ["layernorm", "layernorm beside rms norm"])
def test_training_a_cut_model_is_training_the_masked_one(kind):
    model = model_of(kind)
    plan = random_plan(model, 2)
    reference, masks = zeroed(model, plan), removed_masks(model, plan)
    ecospa.apply_plan(model, plan)
    mine, theirs = (torch.optim.AdamW(one.parameters(), lr=1e-2) for one in (model, reference))
    for step in range(6):
        for network, optimizer in ((model, mine), (reference, theirs)):
            optimizer.zero_grad()
            network(images(step)).square().mean().backward()
            if network is reference:
                for name, parameter in network.named_parameters():
                    parameter.grad.mul_(masks[name])
            optimizer.step()
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                parameter.mul_(masks[name])
    norms = [name for name, _ in model.named_parameters() if "q_norm" in name or "k_norm" in name]
    assert len(norms) >= 4
    for name in norms:  # whole in both, and the weights of removed entries learn as well
        # a bias that moves no score has a gradient of rounding alone, which AdamW scales up
        assert (model.get_parameter(name) - reference.get_parameter(name)).abs().max() <= 1e-8
    assert (model(images(99)) - reference(images(99))).abs().max() <= 1e-8  # Adam scales gradients that are rounding


@torch.no_grad()
def test_without_the_two_columns_it_is_another_function(monkeypatch):
    """The control: what is added is no rounding."""
    model = model_of("layernorm")
    plan = random_plan(model, 2)
    reference = zeroed(model, plan)
    ecospa.apply_plan(model, plan)
    original = timm_vit.normed_heads
    monkeypatch.setattr(
        timm_vit, "normed_heads", lambda *given: tuple(s[..., : given[-1].shape[1]] for s in original(*given))
    )
    assert (model(images()) - reference(images())).abs().max() > 1e-3


def foreign_norms():
    from timm.layers import LayerNorm2d, SimpleNorm

    class MyNorm(nn.LayerNorm):
        pass

    return {
        "SimpleNorm": SimpleNorm(8),
        "LayerNorm2d": LayerNorm2d(8),
        "MyNorm": MyNorm(8),
        "GroupNorm": nn.GroupNorm(2, 8),
    }


@pytest.mark.parametrize("name", ["SimpleNorm", "LayerNorm2d", "MyNorm", "GroupNorm"])
def test_other_norms_are_refused_by_name(name):
    model = model_of("layernorm")
    model.blocks[1].attn.k_norm = foreign_norms()[name]
    with pytest.raises(ecospa.UnsupportedModelError, match=rf"blocks\.1\.attn\.k_norm: .*{name} is not known"):
        ecospa.coupled_pairs(model)


def test_a_norm_over_something_else_or_replaced_is_refused():
    model = model_of("layernorm")
    model.blocks[0].attn.q_norm = nn.LayerNorm((5, 8))
    with pytest.raises(ecospa.UnsupportedModelError, match=r"q_norm: it normalises \(5, 8\)"):
        ecospa.coupled_pairs(model)
    model = model_of("layernorm")
    model.blocks[0].attn.q_norm.forward = torch.nn.functional.relu
    with pytest.raises(ecospa.UnsupportedModelError, match=r"q_norm: its forward was replaced"):
        ecospa.coupled_pairs(model)

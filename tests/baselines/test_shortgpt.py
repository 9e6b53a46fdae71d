"""ShortGPT: the influence of a block by its definition, and what is left is an ordinary, shallower model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import ecospa
from baselines.calibration import Calibration
from baselines.method import Budget, TrainingState
from baselines.shortgpt import ShortGPT, block_influence, block_sizes, least_influential, remove_blocks
from ecospa.accounting import parameters
from ecospa.families import transformer_blocks
from tests.model_zoo import VOCABULARY, ZOO, build, inputs, logits, random_plan

DEPTH = 4


def deep(kind: str, seed: int = 0) -> Any:
    """A model of the zoo with four blocks."""
    torch.manual_seed(seed)
    shallow = build(kind, seed)
    if kind.startswith("timm"):
        import timm

        name = "vit_tiny_patch16_224" if kind != "timm-deit-distilled" else "deit_tiny_distilled_patch16_224"
        sizes = {"embed_dim": 32, "num_heads": 4, "img_size": 8, "patch_size": 4, "num_classes": 5}
        model: Any = timm.create_model(name, depth=DEPTH, qk_norm=kind == "timm-qk-norm", **sizes)
    else:
        config = copy.deepcopy(shallow.config)
        config.num_hidden_layers = DEPTH
        if getattr(config, "layer_types", None):
            config.layer_types = ["full_attention", "sliding_attention"] * 2
            config.use_sliding_window, config.sliding_window = True, 3
        model = type(shallow)(config)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def data(kind: str) -> Calibration:
    return Calibration((inputs(kind, 1), inputs(kind, 2)))


def compress(model: nn.Module, kind: str, target: float, scope: Any = "blocks") -> ShortGPT:
    budget = Budget(target_size=target, total_steps=1, start_step=0, end_step=1, interval=1, target_scope=scope)
    method = ShortGPT(budget)
    assert method.prepare(model, data(kind)) is None
    method.finish(TrainingState(model, None, 1, 1, data(kind)))
    return method


def make_identity(block: nn.Module) -> None:
    """Nothing is added to the stream by this block."""
    last = [module for module in block.modules() if isinstance(module, (nn.Linear, Conv1D))]
    names = ("c_proj", "o_proj", "down_proj", "attn.proj", "fc2")
    written = [module for name, module in block.named_modules() if name.endswith(names) and module in last]
    assert len(written) == 2
    for module in written:
        module.weight.data.zero_()
        if module.bias is not None:
            module.bias.data.zero_()


def flowing(model: Any, batch: dict[str, Tensor]) -> list[Tensor]:
    """Hidden states into every block and out of the last, without a hook of ours where the model gives them itself."""
    if hasattr(model, "config"):
        # the last entry stands behind the final norm in decoders: what the last block gives is caught at the block
        states = list(model(**batch, output_hidden_states=True).hidden_states)
        caught: list[Tensor] = []
        handle = list(transformer_blocks(model).values())[-1].register_forward_hook(
            lambda block, args, result: caught.append(result[0] if isinstance(result, tuple) else result)
        )
        model(**batch)
        handle.remove()
        return [*states[:-1], caught[0]]
    tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(batch["x"]))))
    states = [tokens]
    for block in model.blocks:
        states.append(block(states[-1]))
    return states


@torch.no_grad()
@pytest.mark.parametrize("kind", list(ZOO))
def test_influence_is_one_minus_the_mean_cosine(kind: str) -> None:
    model = deep(kind)
    turns: list[list[float]] = [[] for _ in range(DEPTH)]
    for batch in data(kind).batches:
        states = flowing(model, dict(batch))
        for number in range(DEPTH):
            before, after = states[number].flatten(0, -2).tolist(), states[number + 1].flatten(0, -2).tolist()
            for one, other in zip(before, after, strict=True):
                dot = sum(a * b for a, b in zip(one, other, strict=True))
                lengths = sum(a * a for a in one) ** 0.5 * sum(b * b for b in other) ** 0.5
                turns[number].append(1 - dot / lengths)
    influence = block_influence(model, data(kind))
    assert list(influence) == list(transformer_blocks(model))
    assert list(influence.values()) == pytest.approx([sum(row) / len(row) for row in turns], abs=1e-10)


def test_padding_does_not_count() -> None:
    model, ids = deep("llama-gqa"), inputs("llama-gqa")["input_ids"]
    padded = torch.cat([ids, ids[:, :4]], 1)
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(ids[:, :4])], 1)
    plain = block_influence(model, Calibration(({"input_ids": ids},)))
    masked = block_influence(model, Calibration(({"input_ids": padded, "attention_mask": mask},)))
    assert list(masked.values()) == pytest.approx(list(plain.values()), abs=1e-12)
    unmasked = block_influence(model, Calibration(({"input_ids": padded},)))
    assert max(abs(unmasked[name] - plain[name]) for name in plain) > 1e-6


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind in ZOO if kind not in ("bert", "roberta")])
def test_a_block_that_does_nothing_goes_first_and_nobody_misses_it(kind: str) -> None:
    model = deep(kind)
    blocks = list(transformer_blocks(model).values())
    make_identity(blocks[1])
    before = logits(model, inputs(kind))
    method = compress(model, kind, 0.75)
    assert list(transformer_blocks(model).values()) == [blocks[0], blocks[2], blocks[3]]
    assert (logits(model, inputs(kind)) - before).abs().max() <= 1e-12
    assert method.history[-1]["block_parameters"] == 3 * method.history[0]["block_parameters"] // 4
    assert set(method.history[-1]["widths"]) == {pair.name for pair in ecospa.coupled_pairs(model)}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_what_is_left_runs_in_the_old_order(kind: str) -> None:
    model = deep(kind)
    blocks = list(transformer_blocks(model).items())
    remove_blocks(model, {blocks[0][0], blocks[2][0]})
    assert list(transformer_blocks(model).values()) == [blocks[1][1], blocks[3][1]]
    states = model(**inputs(kind), output_hidden_states=True).hidden_states
    assert len(states) == 3
    assert torch.equal(states[2], blocks[3][1](blocks[1][1](states[0])))


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind, sample in ZOO.items() if sample.causal])
def test_cache_equals_no_cache(kind: str) -> None:
    model, ids = deep(kind), inputs(kind)["input_ids"]
    names = list(transformer_blocks(model))
    remove_blocks(model, names[1:3] if kind.startswith("gpt2") else [names[0], names[3]])
    whole = model(ids, use_cache=False).logits
    first = model(ids[:, :5], use_cache=True)
    name = "cache" if "cache" in first else "past_key_values"  # renamed in transformers 5.24
    rest = model(ids[:, 5:], use_cache=True, **{name: first[name]}).logits
    assert (rest - whole[:, 5:]).abs().max() <= 1e-10
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
    cached, plain = (model.generate(ids[:, :4], use_cache=cache, **options) for cache in (True, False))
    assert torch.equal(cached, plain)


@torch.no_grad()
@pytest.mark.parametrize("kind", list(ZOO))
def test_it_saves_and_loads_bitwise(kind: str, tmp_path: Path) -> None:
    model = deep(kind)
    method = compress(model, kind, 0.5)
    assert len(transformer_blocks(model)) == 2
    method.save(model, tmp_path)
    loaded = method.load(tmp_path, deep(kind, 1)).double()
    assert len(transformer_blocks(loaded)) == 2
    assert torch.equal(logits(loaded, inputs(kind)), logits(model, inputs(kind)))


@torch.no_grad()
def test_inverse_layer_scaling_keeps_the_scores() -> None:
    model = deep("gpt2-untied")
    make_identity(model.transformer.h[0])
    before = logits(model, inputs("gpt2-untied"))
    remove_blocks(model, ["transformer.h.0"])
    assert [block.attn.scaling for block in model.transformer.h] == [8**-0.5 / number for number in (1, 2, 3)]
    assert (logits(model, inputs("gpt2-untied")) - before).abs().max() <= 1e-12


def test_numbers_and_configs_are_those_of_a_shallower_model() -> None:
    model = deep("qwen2")
    whole = model.config
    remove_blocks(model, ["model.layers.0", "model.layers.2"])
    assert model.config is whole and whole.num_hidden_layers == 2
    assert whole.layer_types == ["sliding_attention", "sliding_attention"]
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]
    gpt2 = deep("gpt2")
    remove_blocks(gpt2, ["transformer.h.3"])
    assert gpt2.config.n_layer == 3
    timm = deep("timm-vit")
    remove_blocks(timm, ["blocks.1"])
    assert [entry["module"] for entry in timm.feature_info] == ["blocks.0", "blocks.1", "blocks.2"]
    assert len(timm.forward_intermediates(torch.randn(1, 3, 8, 8, dtype=torch.float64))[1]) == 3


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2-untied", "llama-gqa"])
def test_a_model_that_was_cut_before_stays_one(kind: str, tmp_path: Path) -> None:
    model = deep(kind)
    ecospa.apply_plan(model, random_plan(model, 2))
    container = "transformer.h" if kind.startswith("gpt2") else "model.layers"
    if not kind.startswith("gpt2"):
        for number in (1, 2):
            ecospa.surgery.add_biases(model, {f"{container}.{number}.mlp.down_proj": torch.randn(32).double()})
    expected = {pair.name.replace(".2.", ".1.").replace(".3.", ".2."): pair.width
                for pair in ecospa.coupled_pairs(model) if pair.block != f"{container}.1"}  # fmt: skip
    remove_blocks(model, [f"{container}.1"])
    assert {pair.name: pair.width for pair in ecospa.coupled_pairs(model)} == expected
    assert model.config.ecospa["widths"] == expected
    model.save_pretrained(tmp_path)  # as a trainer would, without ecospa's own file
    loaded = ecospa.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, inputs(kind)), logits(model, inputs(kind)))


@pytest.mark.parametrize("scope", ["blocks", "parameters"])
@pytest.mark.parametrize("target", [1.0, 0.9, 0.75, 0.6, 0.5, 0.4])
def test_it_lands_within_one_block(target: float, scope: Any) -> None:
    model = deep("llama-gqa")
    goal, block = round(target * parameters(model, scope)), block_sizes(model)["model.layers.0"]
    compress(model, "llama-gqa", target, scope)
    assert goal <= parameters(model, scope) < goal + block


def test_of_unequal_blocks_those_that_fit_go() -> None:
    influence = {"a": 0.3, "b": 0.1, "c": 0.1, "d": 0.2}
    sizes = {"a": 10, "b": 50, "c": 20, "d": 10}
    assert least_influential(influence, sizes, 90) == ["b", "c", "d"]
    assert least_influential(influence, sizes, 49) == ["c", "d", "a"]
    assert least_influential(influence, sizes, 25) == ["c"]
    assert least_influential(influence, sizes, 9) == []


def test_what_is_left_trains() -> None:
    model, ids = deep("gpt2").float().train(), inputs("gpt2")["input_ids"]
    compress(model, "gpt2", 0.5)
    assert model.training
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(5):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_what_cannot_be_done_is_refused() -> None:
    budget = Budget(target_size=0.5, total_steps=1, start_step=0, end_step=1, interval=1)
    with pytest.raises(ecospa.ConfigError, match="shortgpt: calibration is None"):
        ShortGPT(budget).prepare(deep("gpt2"), None)
    with pytest.raises(ecospa.ConfigError, match=r"smallest reachable value is 0\.2500"):
        compress(deep("gpt2"), "gpt2", 0.2)
    model = deep("gpt2")
    with pytest.raises(ValueError, match="all 4 blocks"):
        remove_blocks(model, list(transformer_blocks(model)))
    with pytest.raises(ValueError, match=r"transformer\.h\.7"):
        remove_blocks(model, ["transformer.h.7"])
    two = nn.ModuleDict({"one": build("gpt2"), "other": build("gpt2")})
    with pytest.raises(ecospa.UnsupportedModelError, match="one ModuleList"):
        remove_blocks(two, ["one.transformer.h.0"])
    model.transformer.h[2].mlp.c_proj.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"NaN|nan"):
        block_influence(model, data("gpt2"))
    assert len(model.transformer.h) == 4 and model.config.vocab_size == VOCABULARY

"""SliceGPT: full width changes nothing, the bases are the principal ones, and the sliced model is an ordinary one."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import baselines.slicegpt
import ecospa
from baselines.calibration import Calibration, output_error
from baselines.method import Budget, TrainingState
from baselines.residual_rotation import is_rotated
from baselines.slicegpt import SliceGPT, principal_basis, slice_residual, sliced_size, width_for
from ecospa.accounting import parameters
from tests.model_zoo import VOCABULARY, build, inputs, logits

KINDS = ("gpt2", "gpt2-untied", "llama-gqa", "llama-bias-tied")
ALL_KINDS = (*KINDS, "mistral", "qwen2", "qwen3")
TOLERANCE = 1e-8


def tokens(seed: int, batch: int = 4, time: int = 16) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(seed))


CALIBRATION = Calibration(({"input_ids": tokens(5)}, {"input_ids": tokens(6, 2)}))


def compress(model: nn.Module, target: float, scope: Any = "blocks") -> SliceGPT:
    budget = Budget(target_size=target, total_steps=1, start_step=0, end_step=1, interval=1, target_scope=scope)
    method = SliceGPT(budget)
    assert method.prepare(model, CALIBRATION) is None
    method.finish(TrainingState(model, None, 1, 1, CALIBRATION))
    return method


def sliced(kind: str, width: int) -> Any:
    model = build(kind)
    slice_residual(model, CALIBRATION, width)
    return model


@torch.no_grad()
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_full_width_changes_nothing(kind: str) -> None:
    model: Any = build(kind)
    before, size = logits(model, inputs(kind)), parameters(model, "blocks")
    embedding = model.get_input_embeddings().weight.clone()
    compress(model, 1.0)
    assert (logits(model, inputs(kind)) - before).abs().max() <= TOLERANCE
    assert parameters(model, "blocks") > size  # two shortcuts of 32 x 32 per block
    after = model.get_input_embeddings().weight
    assert after.shape == embedding.shape and (after - embedding).abs().max() > 0.1
    assert model.get_output_embeddings().weight is not after and not model.config.tie_word_embeddings


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "gpt2-untied"])
def test_a_layer_norm_model_loses_its_mean_for_free(kind: str) -> None:
    model = build(kind)
    before = logits(model, inputs(kind))
    slice_residual(model, CALIBRATION, 31)
    assert (logits(model, inputs(kind)) - before).abs().max() <= TOLERANCE
    assert (logits(sliced(kind, 30), inputs(kind)) - before).abs().max() > 1e-4


def test_what_slicing_loses_is_the_energy_of_the_smallest_eigenvalues() -> None:
    signal = torch.randn(50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signal = signal @ torch.diag(torch.logspace(0, -2, 12, dtype=torch.float64)) @ torch.ones(12, 12).tril().double()
    energies = torch.linalg.svdvals(signal).square()
    for width in range(1, 13):
        basis = principal_basis(signal.T @ signal, width)
        assert (basis.T @ basis - torch.eye(width)).abs().max() < 1e-12
        lost = (signal - signal @ basis @ basis.T).square().sum()
        assert abs(lost - energies[width:].sum()) < 1e-9
        other = torch.linalg.qr(torch.randn(12, width, generator=torch.Generator().manual_seed(width)).double()).Q
        assert width == 12 or lost < (signal - signal @ other @ other.T).square().sum()


def normed(norm: Any, states: Tensor) -> tuple[Tensor, Tensor]:
    """The signal behind a norm without its gain, and what the norm's readers get: over 32 features always."""
    eps = norm.eps if isinstance(norm, nn.LayerNorm) else norm.variance_epsilon
    signal = states / (states.square().sum(-1, keepdim=True) / 32 + eps).sqrt()
    return signal, signal * norm.weight + (norm.bias if isinstance(norm, nn.LayerNorm) else 0)


def by_hand(model: Any, ids: Tensor, width: int) -> Tensor:
    """Logits of the dense model whose stream is projected onto principal directions at every norm, in old coordinates.

    The directions are those of this very batch, from a singular value decomposition.
    """
    layer_norm = isinstance(getattr(model.base_model, "ln_f", None), nn.LayerNorm)

    def centred(states: Tensor) -> Tensor:
        return states - states.mean(-1, keepdim=True) if layer_norm else states

    def projected(norm: Any, states: Tensor) -> Tensor:
        flat = normed(norm, states)[0].flatten(0, 1)
        right = torch.linalg.svd(flat, full_matrices=False).Vh[:width]
        return states @ right.T @ right

    base, places = model.base_model, torch.arange(ids.shape[1])[None]
    if layer_norm:
        states = centred(base.wte(ids)) + centred(base.wpe(places))
        options, blocks, last = {}, base.h, base.ln_f
    else:
        states = base.embed_tokens(ids)
        options = {"position_embeddings": base.rotary_emb(states, places), "attention_mask": None}
        blocks, last = base.layers, base.norm
    names = ("ln_1", "attn", "ln_2") if layer_norm else ("input_layernorm", "self_attn", "post_attention_layernorm")
    first, attention, second = ([getattr(block, name) for block in blocks] for name in names)
    states = projected(first[0], states)
    for number, block in enumerate(blocks):
        states = states + centred(attention[number](normed(first[number], states)[1], **options)[0])
        states = projected(second[number], states)
        states = states + centred(block.mlp(normed(second[number], states)[1]))
        states = projected(first[number + 1] if number + 1 < len(blocks) else last, states)
    return model.lm_head(normed(last, states)[1])


@torch.no_grad()
@pytest.mark.parametrize("width", [20, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_projected_model_in_fewer_coordinates(kind: str, width: int) -> None:
    model, ids = build(kind), tokens(8)
    expected = by_hand(build(kind), ids, width)
    slice_residual(model, Calibration(({"input_ids": ids},)), width)
    assert (model(ids).logits - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("width", [24, 16])
@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_principal_directions_beat_random_ones(kind: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(kind)
    error = output_error(sliced(kind, width), whole, CALIBRATION)
    generator = torch.Generator().manual_seed(0)

    def random(moment: Tensor, width: int) -> Tensor:
        return torch.linalg.qr(torch.randn(len(moment), width, generator=generator, dtype=torch.float64)).Q

    monkeypatch.setattr(baselines.slicegpt, "principal_basis", random)
    assert all(error < output_error(sliced(kind, width), whole, CALIBRATION) for _ in range(3))


@pytest.mark.parametrize("width", [32, 21, 1])
def test_the_size_is_what_a_pencil_gives(width: int) -> None:
    gpt2 = 2 * (width * (96 + 32 + 128 + 128) + 96 + 128 + 2 * width + 2 * width**2)
    head_and_embeddings = VOCABULARY * (2 * width + 1) + 32 * width
    assert sliced_size(build("gpt2"), width, "blocks") == gpt2
    assert sliced_size(build("gpt2"), width, "parameters") == gpt2 + head_and_embeddings
    llama = 2 * (width * (64 + 32 + 32 + 64 + 3 * 40) + 2 * width**2)
    assert sliced_size(build("llama-gqa"), width, "blocks") == llama
    model = sliced("gpt2", width)
    assert (parameters(model, "blocks"), parameters(model)) == (gpt2, gpt2 + head_and_embeddings)
    assert parameters(sliced("llama-gqa", width)) == llama + 2 * VOCABULARY * width
    assert all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in model.parameters())


@pytest.mark.parametrize("scope", ["blocks", "parameters"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_lands_within_one_width_step(kind: str, scope: Any) -> None:
    model = build(kind)
    goal = round(0.6 * parameters(model, scope))
    width = width_for(model, goal, scope)
    assert sliced_size(model, width, scope) >= goal > sliced_size(model, width - 1, scope)
    method = compress(model, 0.6, scope)
    assert parameters(model, scope) == sliced_size(build(kind), width, scope)
    assert method.history[-1] == {
        "step": 1, "parameters": parameters(model), "block_parameters": parameters(model, "blocks"), "widths": {},
    }  # fmt: skip
    assert method.nonzero_parameters(model) == (parameters(model), parameters(model, "blocks"))


@torch.no_grad()
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_cache_equals_no_cache(kind: str) -> None:
    model, ids = sliced(kind, 20), tokens(9, 2, 9)
    whole = model(ids, use_cache=False).logits
    assert whole.shape == (2, 9, VOCABULARY)
    texts = [
        model.generate(ids[:, :4], do_sample=False, max_new_tokens=6, min_new_tokens=6, **options)
        for options in ({"use_cache": True}, {"use_cache": False}, {"cache_implementation": "static"})
    ]
    assert torch.equal(texts[0], texts[1]) and torch.equal(texts[0], texts[2])
    first = model(ids[:, :5], use_cache=True)
    name = "cache" if "cache" in first else "past_key_values"  # renamed in transformers 5.24
    rest = model(ids[:, 5:], use_cache=True, **{name: first[name]}).logits
    assert (rest - whole[:, 5:]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains(kind: str) -> None:
    model, ids = sliced(kind, 20).float().train(), tokens(10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert missing == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_hidden_states_and_checkpointing_still_work() -> None:
    model, ids = sliced("gpt2", 20).train(), tokens(10)
    assert [state.shape[-1] for state in model(ids, output_hidden_states=True).hidden_states] == [20] * 3
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    gradients = []
    for checkpointed in (False, True):
        model.zero_grad()
        if checkpointed:
            model.gradient_checkpointing_enable()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append(model.transformer.h[0].attention_shortcut.grad.clone())
    assert torch.allclose(*gradients, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_it_saves_and_loads_bitwise(kind: str, tmp_path: Path) -> None:
    model: Any = build(kind)
    method = compress(model, 0.6)
    method.save(model, tmp_path / "new")
    dense = build(kind, seed=4)
    loaded = method.load(tmp_path / "new", dense)
    assert loaded is dense and not loaded.training
    assert torch.equal(logits(loaded, inputs(kind)), logits(model, inputs(kind)))
    assert {name: p.shape for name, p in loaded.named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)) if kind.startswith("gpt2") else loaded):
        assert torch.equal(logits(again, inputs(kind)), logits(model, inputs(kind)))


@torch.no_grad()
def test_a_model_that_is_not_yet_sliced_is_saved_as_any_other(tmp_path: Path) -> None:
    model = build("gpt2")
    before = logits(model, inputs("gpt2"))
    method = compress(build("gpt2"), 0.6)
    method.save(sliced("gpt2", 20), tmp_path)
    method.save(model, tmp_path)
    assert torch.equal(logits(method.load(tmp_path, build("gpt2", 1)), inputs("gpt2")), before)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    model = build("gpt2")
    method = compress(model, 0.6)
    method.save(model, tmp_path)
    with pytest.raises(ecospa.CheckpointError, match="do not fit"):
        method.load(tmp_path, build("llama-gqa"))
    good = json.loads((tmp_path / "slicegpt.json").read_text())
    for content in (good | {"width": 33}, good | {"width": "20"}, good | {"dtype": "nn"}, {"width": 3}, [1]):
        (tmp_path / "slicegpt.json").write_text(json.dumps(content))
        with pytest.raises(ecospa.CheckpointError, match=r"slicegpt\.json"):
            method.load(tmp_path, build("gpt2"))
    (tmp_path / "slicegpt.json").write_text('{"width": ')
    with pytest.raises(ecospa.CheckpointError, match="damaged"):
        method.load(tmp_path, build("gpt2"))
    (tmp_path / "slicegpt.json").write_text(json.dumps(good))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ecospa.CheckpointError, match="do not fit"):
        method.load(tmp_path, build("gpt2"))


@torch.no_grad()
def test_padding_is_left_out() -> None:
    ids, padding = tokens(11), tokens(12, 4, 5)
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(padding)], 1)
    plain, padded = build("llama-gqa"), build("llama-gqa")
    slice_residual(plain, Calibration(({"input_ids": ids},)), 16)
    slice_residual(padded, Calibration(({"input_ids": torch.cat([ids, padding], 1), "attention_mask": mask},)), 16)
    assert (plain(ids).logits - padded(ids).logits).abs().max() <= TOLERANCE


@torch.no_grad()
def test_single_precision_stays_single_precision() -> None:
    whole = build("gpt2").float()
    model = copy.deepcopy(whole)
    slice_residual(model, CALIBRATION, 31)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (model(tokens(1)).logits - whole(tokens(1)).logits).abs().max() < 1e-4


def test_the_model_keeps_its_mode_and_its_frozen_parameters() -> None:
    model: Any = build("llama-bias-tied").train()
    model.model.layers[0].mlp.requires_grad_(False)
    slice_residual(model, CALIBRATION, 20)
    assert model.training and all(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.model.layers[0].mlp.parameters())
    assert model.model.layers[0].self_attn.o_proj.weight.requires_grad


@pytest.mark.parametrize("kind", ["bert", "vit", "timm-vit"])
def test_models_without_a_causal_stream_are_refused(kind: str) -> None:
    with pytest.raises(ecospa.UnsupportedModelError, match="slicegpt is not defined"):
        compress(build(kind), 0.6)


def test_what_cannot_be_sliced_is_refused() -> None:
    budget = Budget(target_size=0.6, total_steps=1, start_step=0, end_step=1, interval=1)
    with pytest.raises(ecospa.ConfigError, match="slicegpt: calibration is None"):
        SliceGPT(budget).prepare(build("gpt2"), None)
    model: Any = build("gpt2")
    with pytest.raises(ecospa.UnsupportedModelError, match="no language model head"):
        SliceGPT(budget).prepare(model.transformer, CALIBRATION)
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value"):
        compress(model, 0.001)
    assert not is_rotated(model)
    slice_residual(model, CALIBRATION, 20)
    with pytest.raises(ecospa.UnsupportedModelError, match="rotated residual stream already"):
        slice_residual(model, CALIBRATION, 16)


@pytest.mark.parametrize(
    ("moment", "width", "message"),
    [
        (torch.eye(3), 0, r"\[1, 3\]"),
        (torch.eye(3), 4, r"\[1, 3\]"),
        (torch.ones(2, 3), 1, "finite matrix"),
        (torch.full((2, 2), float("nan")), 1, "finite matrix"),
    ],
)
def test_nonsense_has_no_principal_basis(moment: Tensor, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        principal_basis(moment, width)

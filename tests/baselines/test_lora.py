"""baselines.lora and baselines.adapters against W + (alpha / r) B A by hand; what trains, counts and is saved."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

import ecospa
from baselines.adapters import FOLDER, SHAPE, WEIGHTS, adapter_layers, adapter_parameters, adapter_weights, merge
from baselines.lora import LoRA, adapter_rank
from baselines.method import TrainingState
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, Run, assert_same_weights, tiny_gpt2, tokens
from tests.model_zoo import ZOO, build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "bert", "vit", "timm-vit")


def adapted(kind: str, model: nn.Module | None = None) -> Any:
    """A model of the zoo with adapters, whose B is not zero any more."""
    model = build(kind) if model is None else model
    assert LoRA(replace(BUDGET, target_size=None)).prepare(model) is None
    with torch.no_grad():
        for layer in adapter_layers(model).values():
            adapter_weights(layer)[1].normal_(std=0.1)
    return model


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """All matrices of the coupled pairs of a plain model."""
    names = {axis.parameter for pair in ecospa.coupled_pairs(model) for axis in pair.axes}
    return {name: model.get_parameter(name) for name in names if model.get_parameter(name).ndim == 2}


def merged_by_hand(dense: nn.Module, model: nn.Module) -> nn.Module:
    """The dense model with W + (alpha / r) B A in place of W, entry by entry of r outer products."""
    dense = copy.deepcopy(dense)
    with torch.no_grad():
        for name, layer in adapter_layers(model).items():
            down, up = adapter_weights(layer)
            update = sum(torch.outer(up[:, i], down[i]) for i in range(len(down))) * 32 / len(down)
            module: Any = dense.get_submodule(name)
            module.weight.add_(update if isinstance(module, nn.Linear) else update.t())
    return dense


@pytest.mark.parametrize("kind", sorted(ZOO))
def test_the_function_is_that_of_the_updated_weights_before_and_after_the_merge(kind: str) -> None:
    dense, model = build(kind), build(kind)
    LoRA(BUDGET).prepare(model)
    assert {f"{name}.weight" for name in adapter_layers(model)} == set(matrices(dense))
    assert not hasattr(model, "peft_config")
    with torch.no_grad():
        at_first = logits(dense, inputs(kind))
        assert torch.equal(logits(model, inputs(kind)), at_first)
        for layer in adapter_layers(model).values():
            adapter_weights(layer)[1].normal_(std=0.1)
        expected = merged_by_hand(dense, model)
        wanted = logits(expected, inputs(kind))
        assert not torch.allclose(wanted, at_first)
        assert torch.allclose(logits(model, inputs(kind)), wanted, rtol=0, atol=1e-10)
        merge(model)
        assert torch.allclose(logits(model, inputs(kind)), wanted, rtol=0, atol=1e-10)
    for (name, new), (_, old) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.allclose(new, old, rtol=0, atol=1e-12), name
        assert new.requires_grad


def test_weights_stay_and_the_rest_trains() -> None:
    run = Run.fresh(LoRA)
    before = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    run.train(3)
    for name, value in run.model.named_parameters():
        frozen = name.endswith("base_layer.weight")
        assert value.requires_grad is not frozen, name
        assert torch.equal(value, before[name]) is frozen, name
        assert (value.grad is None) and (value in run.optimizer.state) is not frozen, name
    biases = [name for name in before if name.endswith("base_layer.bias")]
    assert len(biases) == 8 and before["transformer.wte.weight"].requires_grad is False


def test_the_whole_update_of_a_matrix_has_rank_r_and_the_object_stays() -> None:
    model = tiny_gpt2(dtype=torch.float64)
    old = {name: (weight, weight.detach().clone()) for name, weight in matrices(model).items()}
    modules = dict(model.named_modules())
    run = Run.fresh(LoRA, model=model).train(12).finish()
    assert run.model is model and dict(model.named_modules()) == modules
    for name, weight in matrices(model).items():
        assert weight is old[name][0]
        assert int(torch.linalg.matrix_rank(weight.detach() - old[name][1], rtol=1e-9)) == 8, name


def test_gradients_of_the_adapters_are_those_of_the_definition() -> None:
    model = adapted("gpt2")
    batch = inputs("gpt2")
    logits(model, batch).square().mean().backward()
    plain = merged_by_hand(build("gpt2"), model)
    logits(plain, batch).square().mean().backward()
    for name, layer in adapter_layers(model).items():
        down, up = adapter_weights(layer)
        module: Any = plain.get_submodule(name)
        whole = module.weight.grad.t()  # (out, in)
        assert torch.allclose(up.grad, 32 / 8 * whole @ down.T, rtol=0, atol=1e-10)
        assert torch.allclose(down.grad, 32 / 8 * up.T @ whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "rank"), [("gpt2", 8), ("llama-gqa", 8), ("bert", 8), ("vit", 8), ("timm-vit", 8)])
def test_the_rank_is_a_quarter_of_the_residual_width(kind: str, rank: int) -> None:
    model = build(kind)
    assert adapter_rank(model) == rank
    LoRA(BUDGET).prepare(model)
    shapes = {adapter_weights(layer)[0].shape[0] for layer in adapter_layers(model).values()}
    assert shapes == {rank}


def test_the_rank_has_bounds() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    for width, rank in ((2, 1), (16, 4), (2048, 512), (4096, 512)):
        with torch.device("meta"):
            model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=width, n_head=1, vocab_size=8, n_positions=4))
        assert adapter_rank(model) == rank


def test_the_seed_decides_a_and_leaves_the_callers_random_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    values = []
    for seed in (3, 3, 4):
        model = build("gpt2")
        torch.random.set_rng_state(state)
        LoRA(replace(BUDGET, seed=seed)).prepare(model)
        assert torch.equal(torch.random.get_rng_state(), state)
        layers = list(adapter_layers(model).values())
        values.append([adapter_weights(layer)[0].detach().clone() for layer in layers])
        for layer in layers:
            down, up = adapter_weights(layer)
            bound = 1 / math.sqrt(down.shape[1])
            assert 0.9 * bound < down.detach().abs().max().item() <= 1.000001 * bound
            assert not bool(up.any())
    assert all(torch.equal(one, other) for one, other in zip(values[0], values[1], strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(values[0], values[2], strict=True))
    assert not torch.equal(values[0][0], values[0][1])


@pytest.mark.parametrize("target", [None, 0.1, 1.0])
def test_the_target_is_not_looked_at_and_adapters_count_in_no_size(target: float | None) -> None:
    dense = tiny_gpt2()
    sizes = (parameters(dense), parameters(dense, "blocks"))
    run = Run.fresh(LoRA, replace(BUDGET, target_size=target)).train(2)
    entry = {"step": 0, "parameters": sizes[0], "block_parameters": sizes[1]}
    entry["widths"] = {pair.name: pair.width for pair in ecospa.coupled_pairs(dense)}
    assert run.method.history == [entry]
    assert adapter_parameters(run.model) == 2 * 8 * (32 + 96 + 32 + 32 + 32 + 128 + 128 + 32)
    assert parameters(run.model) == sizes[0] + adapter_parameters(run.model)
    assert run.method.nonzero_parameters(run.model) == sizes
    assert run.finish().method.nonzero_parameters(run.model) == sizes == (parameters(run.model), sizes[1])


def test_a_second_finish_changes_nothing_and_the_model_is_plain() -> None:
    run = Run.fresh(LoRA).train(3).finish()
    before = copy.deepcopy(run.model)
    run.finish()
    assert_same_weights(run.model, before)
    assert len(ecospa.coupled_pairs(run.model)) == 6


def test_without_steps_nothing_changes() -> None:
    model = build("llama-gqa")
    method = LoRA(replace(BUDGET, total_steps=1, start_step=0, end_step=1, interval=1))
    method.prepare(model)
    assert method.build_optimizer(model) is None
    logits(model, inputs("llama-gqa")).square().mean().backward()
    method.after_backward(TrainingState(model, None, 0, 1))
    method.after_step(TrainingState(model, None, 1, 1))
    method.finish(TrainingState(model, None, 1, 1))
    assert_same_weights(model, build("llama-gqa"))


def _with_adapters(model: Any) -> Any:
    return peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True), model)


def _with_embedding_adapter(model: Any) -> Any:
    return peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["wte"]), model)


def _quantised(model: Any) -> Any:
    weight = model.transformer.h[0].mlp.c_fc.weight
    integers = nn.Parameter(weight.detach().mul(8).to(torch.int8), requires_grad=False)
    model.transformer.h[0].mlp.c_fc.weight = integers
    return model


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_with_adapters, r"h\.0\.attn\.c_attn: .* holds adapters already; merge or unload"),
        (_with_embedding_adapter, r"wte: .* holds adapters already; merge or unload"),
        (_quantised, r"h\.0\.mlp\.c_fc\.weight: .*int8.*dequantise"),
    ],
)
def test_models_with_adapters_and_quantised_ones_are_refused(spoil: Callable[[Any], Any], message: str) -> None:
    model = spoil(build("gpt2"))
    with pytest.raises(ecospa.UnsupportedModelError, match=message):
        LoRA(BUDGET).prepare(model)


def test_a_model_is_not_given_adapters_twice() -> None:
    model = build("gpt2")
    LoRA(BUDGET).prepare(model)
    with pytest.raises(ecospa.UnsupportedModelError, match="holds adapters already"):
        LoRA(BUDGET).prepare(model)


def _float32(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    batch = {name: value.float() if value.is_floating_point() else value for name, value in inputs(kind).items()}
    return ZOO[kind].build().eval(), batch


@pytest.mark.parametrize("kind", [*KINDS, "llama-bias-tied"])
def test_a_checkpoint_on_the_way_restores_everything(kind: str, tmp_path: Path) -> None:
    plain, batch = _float32(kind)
    model = adapted(kind, plain)
    next(p for p in model.parameters() if p.ndim == 1 and p.requires_grad).requires_grad_(False)  # as a user may
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    run = LoRA(BUDGET)
    run.save(model, tmp_path)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    loaded = run.load(tmp_path, _float32(kind)[0])
    assert_same_weights(loaded, model)
    assert [(name, p.requires_grad) for name, p in loaded.named_parameters()] == list(before.items())
    with torch.no_grad():
        assert torch.equal(logits(loaded, batch), logits(model, batch))
    merge(model)
    merge(loaded)
    run.save(model, tmp_path)  # the folder holds no adapters any more
    assert not (tmp_path / FOLDER).exists()
    assert_same_weights(run.load(tmp_path, _float32(kind)[0]), loaded)


def test_another_dtype_is_kept(tmp_path: Path) -> None:
    model = adapted("gpt2")
    LoRA(BUDGET).save(model, tmp_path)
    loaded = LoRA(BUDGET).load(tmp_path, build("gpt2"))
    assert {p.dtype for p in loaded.parameters()} == {torch.float64}
    assert_same_weights(loaded, model)


def test_a_failed_save_leaves_the_adapters_on(tmp_path: Path) -> None:
    model = adapted("gpt2")
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(ecospa.CheckpointError, match="is a file"):
        LoRA(BUDGET).save(model, tmp_path / "taken")
    assert len(adapter_layers(model)) == 8


def _edit(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / SHAPE).read_text())
        (folder / SHAPE).write_text(json.dumps(content | {key: value}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / SHAPE).unlink(), "missing or damaged"),
        (lambda folder: (folder / SHAPE).write_text('{"rank": 8'), "missing or damaged"),
        (lambda folder: (folder / SHAPE).write_text("[]"), "missing or damaged"),
        (lambda folder: (folder / SHAPE).write_text('{"version": 1}'), "missing or damaged"),
        (_edit("version", 2), "version is 2; this release reads 1"),
        (_edit("rank", 0), "rank is 0"),
        (_edit("rank", 8.0), "rank is 8.0"),
        (_edit("alpha", "large"), "is damaged"),
        (_edit("frozen", "all"), "is damaged"),
        (_edit("rank", 4), r"h\.0\..*A does not fit"),
        (_edit("frozen", ["nothing.weight"]), "no parameter nothing.weight"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be read"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"1234"), "cannot be read"),
    ],
)
def test_damaged_checkpoints_are_refused(damage: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    LoRA(BUDGET).save(adapted("gpt2"), tmp_path)
    damage(tmp_path / FOLDER)
    with pytest.raises(ecospa.CheckpointError, match=message):
        LoRA(BUDGET).load(tmp_path, build("gpt2"))


def test_a_resumed_run_goes_on_after_one_step(tmp_path: Path) -> None:
    whole = Run.fresh(LoRA).train(6).finish()
    halves = Run.fresh(LoRA).train(1).resumed(tmp_path).train(6).finish()
    assert halves.losses == whole.losses
    assert_same_weights(halves.model, whole.model)
    with torch.no_grad():
        assert bool(halves.model(tokens(99)).logits.isfinite().all())

"""baselines.llm_pruner: importance against what a cut really removes, the share per block, landing and recovery."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ecospa
from baselines.adapters import adapter_layers, adapter_weights
from baselines.calibration import accumulate_gradients, as_calibration, batch_loss
from baselines.llm_pruner import LLMPruner, LLMPrunerVector, pruned_blocks, relative_rank, taylor_importance
from baselines.method import TrainingMethod, TrainingState
from baselines.structures import Kept, cut, most_removable, structures
from ecospa.accounting import parameters
from ecospa.surgery import keep_heads
from tests.baselines.runs import BUDGET, Run, assert_same_weights
from tests.baselines.test_flap import surviving
from tests.model_zoo import VOCABULARY, ZOO, build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "bert", "vit", "timm-vit")
METHODS = {"element": LLMPruner, "vector": LLMPrunerVector}


def labelled(kind: str, dtype: torch.dtype = torch.float64) -> list[dict[str, Tensor]]:
    """Three batches of two sequences or images, with labels."""
    batches: list[dict[str, Tensor]] = []
    for seed in (11, 12, 13):
        batch = {n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs(kind, seed).items()}
        labels = torch.tensor([seed % 5, 1]) if ZOO[kind].image else batch["input_ids"]
        batches.append({**batch, "labels": labels})
    return batches


def pruned(kind: str, target: float, method: type[TrainingMethod] = LLMPruner, model: Any = None) -> tuple[Any, Any]:
    """The model of a kind behind the cut and the merge of adapters that never trained, and the method."""
    model = build(kind) if model is None else model
    run = method(replace(BUDGET, target_size=target))
    assert run.prepare(model, labelled(kind)) is None
    run.finish(TrainingState(model, None, 12, 12))
    return model, run


def deeper(blocks: int, dtype: torch.dtype = torch.float64) -> Any:
    """GPT-2 of that many blocks."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=blocks, n_embd=16, n_head=4, vocab_size=VOCABULARY, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).to(dtype).eval()


def vanished(model: nn.Module, name: str, number: int) -> dict[str, Tensor]:
    """Parameter -> bool, the entries that really leave with a structure: a copy whose entries are numbered is cut."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.copy_(torch.arange(parameter.numel()).view(parameter.shape))
    found = structures(model)
    if name in found.heads:
        keep_heads(copied, {name: _but(number, found.heads[name])})
    else:
        cut(copied, Kept(channels={name: _but(number, found.channels[name])}))
    left = dict(copied.named_parameters())
    gone = {}
    for parameter_name, parameter in model.named_parameters():
        every = torch.arange(parameter.numel(), dtype=torch.float64).view(parameter.shape)
        gone[parameter_name] = ~torch.isin(every, left[parameter_name].detach())
    return {parameter_name: mask for parameter_name, mask in gone.items() if bool(mask.any())}


def _but(number: int, count: int) -> Tensor:
    return torch.tensor([other for other in range(count) if other != number])


def importance_by_hand(model: nn.Module, gone: dict[str, Tensor], aggregation: str) -> float:
    """Sum of |w g| over what vanishes, or of |sum w g| over the rows or columns that do."""
    total = 0.0
    for name, mask in gone.items():
        weight: Any = model.get_parameter(name)
        products = (weight.detach() * weight.grad).where(mask, 0.0)
        if aggregation == "element" or products.ndim == 1:
            total += products.abs().sum().item()
        else:
            whole_rows = mask.all(1)
            assert torch.equal(mask.any(1), whole_rows) or torch.equal(mask.any(0), mask.all(0))
            lines = products if bool(whole_rows.any()) else products.t()
            total += sum(abs(line.sum().item()) for line in lines)
    return total


@pytest.mark.parametrize("kind", [*KINDS, "llama-bias-tied"])
def test_importance_is_that_of_all_weights_that_leave_with_a_structure(kind: str) -> None:
    model = build(kind)
    accumulate_gradients(model, as_calibration(labelled(kind)))
    both = {aggregation: taylor_importance(model, aggregation) for aggregation in METHODS}  # type: ignore[arg-type]
    found = structures(model)
    for heads, channels in both.values():
        assert {name: len(score) for name, score in heads.items()} == found.heads
        assert {name: len(score) for name, score in channels.items()} == found.channels
    for counts in (found.heads, found.channels):
        for name, count in list(counts.items())[-1:]:
            for number in (0, count // 2, count - 1):
                gone = vanished(model, name, number)
                for aggregation, (heads, channels) in both.items():
                    score = {**heads, **channels}[name][number].item()
                    assert score == pytest.approx(importance_by_hand(model, gone, aggregation), rel=1e-10)


def test_gradients_are_those_of_the_mean_loss_and_do_not_stay() -> None:
    model, data = build("gpt2"), labelled("gpt2")
    sum(batch_loss(model, batch) for batch in data).backward()  # type: ignore[union-attr]
    by_hand = taylor_importance(model, "element")
    accumulate_gradients(model, as_calibration(data))
    for mine, theirs in zip(by_hand, taylor_importance(model, "element"), strict=True):
        for name in mine:
            assert torch.allclose(mine[name] / 3, theirs[name], rtol=1e-5)  # transformers takes the loss in float32
    run = LLMPruner(BUDGET)
    run.prepare(model, data)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_two_aggregations_differ() -> None:
    kept = [surviving(build("gpt2"), pruned("gpt2", 0.5, method)[0]) for method in METHODS.values()]
    assert kept[0] != kept[1]


@pytest.mark.parametrize("aggregation", sorted(METHODS))
@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "timm-vit"])
def test_the_least_important_of_every_layer_go(kind: str, aggregation: str) -> None:
    dense = build(kind)
    model, _ = pruned(kind, 0.5, METHODS[aggregation])
    accumulate_gradients(dense, as_calibration(labelled(kind)))
    heads, channels = taylor_importance(dense, aggregation)  # type: ignore[arg-type]
    outputs = list(surviving(dense, model).values())
    layers = [score for pair in zip(heads.values(), channels.values(), strict=True) for score in pair]
    for number, score in enumerate(layers):
        size = 1 if number % 2 else len(outputs[number]) // structures(model).heads[list(heads)[number // 2]]
        kept = sorted({channel // size for channel in outputs[number]})
        assert 0 < len(kept) < len(score)
        assert kept == sorted(sorted(range(len(score)), key=lambda place: score[place].item())[-len(kept) :])


@pytest.mark.parametrize("target", [0.45, 0.8])
@pytest.mark.parametrize("blocks", [2, 4, 16])
def test_every_pruned_block_loses_the_same_share_and_the_ends_stay(blocks: int, target: float) -> None:
    dense = deeper(blocks)
    model, run = pruned("gpt2", target, model=deeper(blocks))
    whole, found = structures(dense), structures(model)
    size = parameters(dense, "blocks")
    ends = {2: (0, 0), 4: (1, 1), 16: (2, 1)}[blocks]
    inner = blocks - sum(ends)
    if size * (1 - target) > 0.75 * inner / blocks * sum(_prunable(dense)):
        ends = (0, 0)
    touched = []
    for block in range(blocks):
        attention, ffn = f"transformer.h.{block}.attn", f"transformer.h.{block}.mlp.ffn"
        lost = (whole.heads[attention] - found.heads[attention], whole.channels[ffn] - found.channels[ffn])
        if block < ends[0] or block >= blocks - ends[1]:
            assert lost == (0, 0), block
        else:
            touched.append(lost)
    heads, channels = zip(*touched, strict=True)
    assert max(heads) - min(heads) <= 1 and max(channels) - min(channels) <= 1 and min(channels) > 0
    share = max(channels) / 64
    # heads of a share are rounded down, and where one more did not fit, channels made up for it
    assert max(heads) <= 4 * share + 1e-9
    assert min(heads) >= min(3, int(4 * (min(channels) - 1) / 64)) - 1
    assert 0 <= parameters(model, "blocks") - round(target * size) < 2 * 16 + 1
    assert [entry["block_parameters"] for entry in run.history] == [parameters(model, "blocks")]


def _prunable(model: nn.Module) -> tuple[int, int]:
    found = structures(model)
    heads = sum(count * found.head_parameters[name] for name, count in found.heads.items())
    return heads, sum(count * found.channel_parameters[name] for name, count in found.channels.items())


def test_of_32_blocks_the_authors_four_and_two_stay() -> None:
    with torch.device("meta"):
        model = deeper(32)
    names = [f"transformer.h.{number}" for number in range(32)]
    prunable = sum(_prunable(model))
    assert pruned_blocks(model, prunable // 2) == names[4:30]
    assert pruned_blocks(model, int(0.75 * 26 / 32 * prunable)) == names[4:30]
    assert pruned_blocks(model, int(0.75 * 26 / 32 * prunable) + 1) == names


def test_blocks_that_cannot_lose_their_share_do_not_spare_the_ends() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    one_head = GPT2Config(n_layer=4, n_embd=16, n_head=1, n_inner=16, vocab_size=8, n_positions=8)
    with torch.device("meta"):
        model = GPT2LMHeadModel(one_head)
    heads, channels = _prunable(model)
    most = most_removable(model) // 2  # two blocks without their one head
    assert most < 0.75 * (heads + channels) / 2
    assert len(pruned_blocks(model, most)) == 2 and len(pruned_blocks(model, most + 1)) == 4


@pytest.mark.parametrize(
    ("kind", "target"), [*((kind, 0.45) for kind in sorted(ZOO)), *((kind, 0.85) for kind in KINDS)]
)
def test_it_lands_on_the_target(kind: str, target: float) -> None:
    whole = parameters(build(kind), "blocks")
    model, run = pruned(kind, target)
    blocks = parameters(model, "blocks")
    assert 0 <= blocks - round(target * whole) < 0.01 * whole
    (entry,) = run.history
    assert (entry["step"], entry["parameters"], entry["block_parameters"]) == (0, parameters(model), blocks)
    assert entry["widths"] == {pair.name: pair.width for pair in ecospa.coupled_pairs(model)}
    with torch.no_grad():
        assert bool(logits(model, inputs(kind)).isfinite().all())


def test_the_whole_model_can_be_the_target_and_the_smallest_one_is_reached() -> None:
    size = parameters(build("gpt2"))
    run = LLMPruner(replace(BUDGET, target_size=0.7, target_scope="parameters"))
    model = build("gpt2")
    run.prepare(model, labelled("gpt2"))
    assert 0 <= run.nonzero_parameters(model)[0] - round(0.7 * size) < 65
    blocks = parameters(build("gpt2"), "blocks")
    model, _ = pruned("gpt2", (blocks - most_removable(build("gpt2"))) / blocks)
    assert {pair.groups for pair in ecospa.coupled_pairs(model)} == {1}
    assert {pair.width for pair in ecospa.coupled_pairs(model) if pair.kind == "ffn"} == {1}
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value is"):
        pruned("gpt2", 0.01)


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_nothing_is_cut_when_nothing_has_to_go(kind: str) -> None:
    model, run = pruned(kind, 1.0)
    assert_same_weights(model, build(kind))
    assert run.history[0]["parameters"] == parameters(model)


def test_without_steps_it_is_the_cut_alone() -> None:
    model = build("gpt2")
    run = LLMPruner(replace(BUDGET, target_size=0.6, total_steps=1, start_step=0, end_step=1, interval=1))
    run.prepare(model, labelled("gpt2"))
    assert run.build_optimizer(model) is None
    batch_loss(model, labelled("gpt2")[0]).backward()
    run.after_backward(TrainingState(model, None, 0, 1))
    run.after_step(TrainingState(model, None, 1, 1))
    run.finish(TrainingState(model, None, 1, 1))
    before = dict(build("gpt2").named_parameters())
    for name, parameter in model.named_parameters():
        assert bool(torch.isin(parameter, before[name]).all()), name
    surviving(build("gpt2"), model)  # every column is one of the dense model's


def test_adapters_alone_recover_the_model() -> None:
    run = Run.fresh(LLMPruner, replace(BUDGET, target_size=0.6))
    before = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    for layer in adapter_layers(run.model).values():
        down, up = adapter_weights(layer)
        assert (down.shape[0], up.shape[1], layer.scaling["default"]) == (8, 8, 2.0)
    run.train(12)
    for name, parameter in run.model.named_parameters():
        adapter = "lora_" in name
        assert parameter.requires_grad is adapter and torch.equal(parameter, before[name]) is not adapter, name
    entry = dict(run.method.history[0])
    run.finish()
    assert run.method.history == [entry]
    assert (entry["parameters"], entry["block_parameters"]) == run.method.nonzero_parameters(run.model)
    assert all(parameter.requires_grad for parameter in run.model.parameters())
    changed = {
        name
        for name, parameter in run.model.named_parameters()
        if not torch.equal(parameter, before.get(name, before.get(f"{name[:-7]}.base_layer.weight", parameter)))
    }
    assert changed == {axis.parameter for pair in ecospa.coupled_pairs(run.model) for axis in pair.axes} - {
        name for name in before if name.endswith("bias")
    } - {name for name, parameter in run.model.named_parameters() if parameter.ndim == 1}


@pytest.mark.parametrize("kind", KINDS)
def test_cut_models_save_and_load_on_the_way_and_after(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = ZOO[kind].build().eval(), labelled(kind, torch.float32)
    run = LLMPruner(replace(BUDGET, target_size=0.55))
    run.prepare(model, data)
    with torch.no_grad():
        for layer in adapter_layers(model).values():
            adapter_weights(layer)[1].normal_(std=0.1)
    batch = {name: value for name, value in data[0].items() if name != "labels"}
    for folder in (tmp_path / "running", tmp_path / "finished"):
        run.save(model, folder)
        again = LLMPruner(run.budget)
        again.load_state_dict(json.loads(json.dumps(run.state_dict())))
        loaded = again.load(folder, ZOO[kind].build())
        assert_same_weights(loaded, model)
        assert [(n, p.requires_grad) for n, p in loaded.named_parameters()] == [
            (n, p.requires_grad) for n, p in model.named_parameters()
        ]
        assert again.nonzero_parameters(loaded) == run.nonzero_parameters(model)
        with torch.no_grad():
            assert torch.equal(logits(loaded, batch), logits(model, batch))
        run.finish(TrainingState(model, None, 12, 12))


def test_relative_ranks_are_places_in_the_layer() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    assert relative_rank("layer", scores).tolist() == [1.0, 0.25, 0.75, 0.5]
    assert torch.equal(relative_rank("l", torch.arange(3.0)), relative_rank("l", torch.arange(60.0))[19::20])
    for broken in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="layer: an importance is NaN or infinite"):
            relative_rank("layer", torch.tensor([1.0, broken]))


def test_what_gives_no_importance_is_refused() -> None:
    with pytest.raises(ecospa.ConfigError, match="no 'labels'"):
        LLMPruner(BUDGET).prepare(build("gpt2"), [inputs("gpt2")])
    model: Any = build("gpt2")
    model.transformer.h[1].mlp.c_fc.weight.requires_grad_(False)
    with pytest.raises(ecospa.ConfigError, match=r"h\.1\.mlp\.c_fc\.weight has no gradient; unfreeze it"):
        LLMPruner(BUDGET).prepare(model, labelled("gpt2"))
    model = build("gpt2")
    with torch.no_grad():
        model.transformer.h[0].attn.c_proj.weight[3, 4] = float("inf")
    with pytest.raises(ValueError, match="an importance is NaN or infinite"):
        LLMPruner(BUDGET).prepare(model, labelled("gpt2"))
    assert parameters(model) == parameters(build("gpt2"))
    with pytest.raises(ecospa.ConfigError, match="target_size is None"):
        LLMPrunerVector(replace(BUDGET, target_size=None))
    model = build("gpt2")
    LLMPruner(BUDGET).prepare(model, labelled("gpt2"))
    with pytest.raises(ecospa.UnsupportedModelError, match="holds adapters already"):
        LLMPruner(BUDGET).prepare(model, labelled("gpt2"))

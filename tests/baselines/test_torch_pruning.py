"""Torch-Pruning: the real library cuts what it should where it works, and nothing passes for a result where not."""

from __future__ import annotations

import builtins
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import baselines.torch_pruning
import ecospa
from baselines.calibration import Calibration, accumulate_gradients
from baselines.method import Budget, TrainingState
from baselines.structures import Kept, cut, structures
from baselines.torch_pruning import QUERY_KEY_VALUE, TorchPruning
from baselines.wanda_sp import uniform_shares
from ecospa.accounting import parameters
from tests.model_zoo import VOCABULARY, ZOO, build, inputs, logits

library = pytest.importorskip("torch_pruning", reason="needs the extra 'peers'")
ROTARY = {"llama-bias-tied": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}
KINDS = ("bert", "roberta", "vit", "vit-no-bias", "deit", "timm-vit", "timm-deit-distilled", *ROTARY)


def whole(kind: str, seed: int = 0) -> Any:
    """A model of the zoo; rotary ones with a key/value head per query head."""
    if kind not in ROTARY:
        return build(kind, seed)
    import transformers

    torch.manual_seed(seed)
    config = build(kind).config
    config.num_key_value_heads = config.num_attention_heads
    model = getattr(transformers, f"{ROTARY[kind]}ForCausalLM")(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def data(kind: str, dtype: torch.dtype = torch.float64) -> Calibration:
    generator = torch.Generator().manual_seed(7)
    if not ZOO[kind].image:
        batches = [torch.randint(1, VOCABULARY, (3, 9), generator=generator) for _ in range(2)]
        return Calibration(tuple({"input_ids": tokens, "labels": tokens} for tokens in batches))
    name = next(iter(inputs(kind)))
    images = [torch.randn(3, 3, 8, 8, generator=generator, dtype=dtype) for _ in range(2)]
    return Calibration(tuple({name: image, "labels": torch.tensor([0, 3, 1])} for image in images))


def compress(model: nn.Module, calibration: Calibration, target: float = 0.5, scope: Any = "blocks") -> TorchPruning:
    budget = Budget(target_size=target, total_steps=1, start_step=0, end_step=1, interval=1, target_scope=scope)
    method = TorchPruning(budget)
    assert method.prepare(model, calibration) is None
    method.finish(TrainingState(model, None, 1, 1, calibration))
    return method


@pytest.mark.parametrize(("target", "dtype"), [(0.9, torch.float32), (0.3, torch.float64)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_lands_and_the_model_runs(kind: str, target: float, dtype: torch.dtype) -> None:
    model = whole(kind).to(dtype).train()
    full, outside = parameters(model, "blocks"), parameters(model) - parameters(model, "blocks")
    calibration = data(kind, dtype)
    method = compress(model, calibration, target)
    over = parameters(model, "blocks") - round(target * full)
    assert 0 <= over <= 0.01 * full
    assert parameters(model) == parameters(model, "blocks") + outside  # nothing else was touched
    assert method.history[-1]["block_parameters"] == parameters(model, "blocks")
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert bool(torch.isfinite(logits(model.eval(), without_labels(calibration))).all())
    method.finish(TrainingState(model, None, 1, 1, calibration))  # a second call changes nothing
    assert over == parameters(model, "blocks") - round(target * full)


def without_labels(calibration: Calibration) -> dict[str, Tensor]:
    return {name: value for name, value in calibration.batches[0].items() if name != "labels"}


def lowest_go(scores: Tensor, count: int) -> Tensor:
    return scores.argsort()[count:].sort().values


def by_hand(kind: str, calibration: Calibration, target: float) -> Any:
    """The model without the heads and channels of lowest |w dL/dw|, cut by this project's own surgery."""
    model = whole(kind)
    accumulate_gradients(model, calibration)
    saliency = {name: (p * p.grad).abs() for name, p in model.named_parameters() if p.grad is not None}
    found = structures(model)
    shares = uniform_shares(model, parameters(model, "blocks") - round(target * parameters(model, "blocks")))
    heads, channels = {}, {}
    for pair in ecospa.coupled_pairs(model):
        matrices = [axis for axis in pair.axes if axis.parameter.endswith(".weight")]
        sums = [
            saliency[axis.parameter].transpose(0, axis.axis).flatten(1).sum(1)[axis.index].sum(-1) for axis in matrices
        ]  # (groups, width) each
        if pair.kind is ecospa.PairKind.FFN:
            score = torch.stack([own[0] for own in sums]).mean(0)
            channels[pair.name] = lowest_go(score, shares[pair.name])
        else:
            # query, key, value and output have the same weight: the mean of all four
            total = torch.stack([own.sum(1) for own in sums]).sum(0)
            heads[pair.module] = heads.get(pair.module, 0) + total
    stays = {name: lowest_go(score, shares[name]) for name, score in heads.items()}
    assert any(0 < shares[name] < found.heads[name] for name in found.heads)
    model.zero_grad()
    cut(model, Kept(stays, channels))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_cuts_what_taylor_says_and_cuts_it_right(kind: str) -> None:
    calibration = data(kind)
    expected = by_hand(kind, calibration, 0.5)
    model = whole(kind)
    compress(model, calibration)
    batch = inputs(kind)
    with torch.no_grad():
        assert (logits(model, batch) - logits(expected, batch)).abs().max() < 1e-9
        assert (logits(model, batch) - logits(whole(kind), batch)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_it_saves_and_loads_bitwise(kind: str, tmp_path: Path) -> None:
    model = whole(kind)
    method = TorchPruning(Budget(target_size=0.5, total_steps=1, start_step=0, end_step=1, interval=1))
    method.save(model, tmp_path / "whole")
    compress(model, data(kind))
    method.save(model, tmp_path / "cut")
    for folder, expected in (("whole", whole(kind)), ("cut", model)):
        dense = whole(kind, seed=4)
        loaded = method.load(tmp_path / folder, dense)
        assert loaded is dense and not loaded.training
        assert torch.equal(logits(loaded, inputs(kind)), logits(expected, inputs(kind)))
        assert {name: p.shape for name, p in loaded.named_parameters()} == {
            name: p.shape for name, p in expected.named_parameters()
        }
        assert structures(loaded) == structures(expected)
    assert torch.equal(logits(copy.deepcopy(model), inputs(kind)), logits(model, inputs(kind)))


@pytest.mark.parametrize("kind", ["bert", "llama-bias-tied", "timm-vit"])
def test_what_is_left_trains(kind: str) -> None:
    model, calibration = whole(kind), data(kind)
    compress(model, calibration)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(
            logits(model, without_labels(calibration)).flatten(0, -2), calibration.batches[0]["labels"].flatten()
        )
        loss.backward()
        assert all(p.grad is not None for name, p in model.named_parameters() if "layers." in name or "blocks." in name)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_llama_generates_with_its_caches() -> None:
    model = whole("llama-bias-tied")
    compress(model, data("llama-bias-tied"))
    assert model.config.num_attention_heads == model.config.num_key_value_heads == 2
    start = inputs("llama-bias-tied")["input_ids"][:, :4]
    texts = [
        model.generate(start, do_sample=False, max_new_tokens=6, min_new_tokens=6, **options)
        for options in ({"use_cache": True}, {"use_cache": False}, {"cache_implementation": "static"})
    ]
    assert torch.equal(texts[0], texts[1]) and torch.equal(texts[0], texts[2])


def test_frozen_parameters_are_cut_and_stay_frozen() -> None:
    model = whole("bert")
    model.bert.encoder.requires_grad_(False)
    compress(model, data("bert"))
    assert parameters(model, "blocks") < 0.51 * parameters(whole("bert"), "blocks")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if not name.startswith("bert.encoder.")
    }


def test_target_one_removes_nothing() -> None:
    model = whole("bert")
    before = copy.deepcopy(model.state_dict())
    compress(model, data("bert"), 1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_whole_model_can_be_the_scope() -> None:
    model = whole("vit")
    full = parameters(model)
    compress(model, data("vit"), 0.7, "parameters")
    assert 0 <= parameters(model) - round(0.7 * full) <= 0.01 * full


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gpt2", "not defined for the gpt2"),
        ("llama-gqa", "2 query heads share"),
        ("qwen3", "2 query heads share"),
        ("timm-qk-norm", "queries and keys are normed"),
    ],
)
def test_what_the_library_cannot_prune_is_refused_before_the_first_step(kind: str, message: str) -> None:
    model = build(kind)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ecospa.UnsupportedModelError, match=message):
        compress(model, data(kind))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_library_still_removes_nothing_from_gpt2() -> None:
    """If this fails, the table in the method's header is out of date."""
    model: Any = build("gpt2").float()
    pruner = library.pruner.BasePruner(
        model,
        {"input_ids": inputs("gpt2")["input_ids"], "use_cache": False},
        importance=library.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[model.lm_head],
        in_channel_groups={},
        out_channel_groups={},
        output_transform=lambda result: result.logits.sum(),
    )
    pruner.step()
    assert parameters(model) == parameters(build("gpt2"))


def test_the_library_still_fails_on_normed_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise; what it raises then is its own error."""
    monkeypatch.setattr(TorchPruning, "accept", lambda self, model, given: setattr(self, "calibration", given))
    with pytest.raises(IndexError):
        compress(build("timm-qk-norm"), data("timm-qk-norm"))


def test_a_silent_failure_of_the_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.pruner.BasePruner, "step", lambda self, interactive=False: iter(()))
    with pytest.raises(ecospa.UnsupportedModelError, match="torch_pruning removed nothing of the"):
        compress(whole("bert"), data("bert"))
    monkeypatch.undo()
    monkeypatch.setattr(baselines.torch_pruning, "mend_counts", lambda model, heads: None)
    with pytest.raises(RuntimeError):  # half the heads are gone, and timm does not know
        compress(whole("timm-vit"), data("timm-vit"))


def test_bad_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ecospa.ConfigError, match="torch_pruning: calibration is None"):
        compress(whole("bert"), None)  # type: ignore[arg-type]
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value"):
        compress(whole("bert"), data("bert"), 0.01)
    with pytest.raises(ecospa.ConfigError, match="'labels'"):
        compress(whole("bert"), Calibration((inputs("bert"),)))
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch_pruning":
            raise ImportError("No module named 'torch_pruning'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ecospa.ConfigError, match="extra 'peers'"):
        compress(whole("bert"), data("bert"))


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    model = whole("bert")
    method = compress(model, data("bert"))
    method.save(model, tmp_path)
    path = tmp_path / "cut_shapes.json"
    good = json.loads(path.read_text())
    query = "bert.encoder.layer.0.attention.self.query"
    shapes, counts = good["shapes"], good["counts"]
    with pytest.raises(ecospa.CheckpointError, match="another model"):
        method.load(tmp_path, whole("roberta"))
    assert shapes[f"{query}.weight"] == [16, 32]
    broken = [
        good | {"shapes": shapes | {f"{query}.weight": wrong}}
        for wrong in ([33, 32], [16], [16, 0], [16.0, 32], 16, [15, 32])
    ]
    broken += [good | {"counts": counts | {query: counts[query] | {"out_features": wrong}}} for wrong in (0, 17, "16")]
    broken += [good | {"counts": counts | {query: counts[query] | {"forward": 1}}}, good | {"dtype": "nn"}, [1]]
    broken += [{key: value for key, value in good.items() if key != lost} for lost in ("shapes", "counts", "dtype")]
    for content in broken:
        path.write_text(json.dumps(content))
        with pytest.raises(ecospa.CheckpointError, match=r"cut_shapes\.json"):
            method.load(tmp_path, whole("bert"))
    path.write_text('{"shapes": ')
    with pytest.raises(ecospa.CheckpointError, match="damaged"):
        method.load(tmp_path, whole("bert"))
    path.write_text(json.dumps(good))
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ecospa.CheckpointError, match="cannot be read"):
        method.load(tmp_path, whole("bert"))
    path.unlink()
    with pytest.raises(ecospa.CheckpointError, match="missing"):
        method.load(tmp_path, whole("bert"))


def test_every_family_has_its_projections() -> None:
    assert QUERY_KEY_VALUE.keys() == TorchPruning.architectures

"""A save verifies itself, and a load reads no more than the folder: the same function, or an error that names why."""

from __future__ import annotations

import copy
import functools
import json
import socket
import types
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import nn

import ecospa
from ecospa.architecture import empty_model
from tests.model_zoo import ZOO, inputs, logits, random_plan

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def cut(kind: str) -> Any:
    torch.manual_seed(0)
    model = ZOO[kind].build().eval()
    ecospa.apply_plan(model, random_plan(model, 4))
    return model


def own_timm(name: str = "vit_tiny_patch16_224", **options: Any) -> Any:
    shape = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 8, "patch_size": 4, "num_classes": 5}
    torch.manual_seed(0)
    model = timm.create_model(name, **(shape | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize(
    "options",
    [
        {"act_layer": "relu"},
        {"act_layer": functools.partial(nn.GELU, approximate="tanh"), "mlp_ratio": 3},
        {"global_pool": "avg", "fc_norm": False},
        {"norm_layer": functools.partial(nn.LayerNorm, eps=1e-2), "init_values": 0.1},
        {"norm_layer": "rmsnorm", "global_pool": "map", "pre_norm": True},
        {"name": "vit_small_patch16_224.dino", "dynamic_img_size": True, "reg_tokens": 2},
        {"class_token": False, "global_pool": "avg", "no_embed_class": True, "final_norm": False},
    ],
)
@torch.no_grad()
def test_timm_models_come_back_as_the_same_function(options: dict[str, Any], tmp_path: Path) -> None:
    model = own_timm(**options)
    ecospa.apply_plan(model, random_plan(model, 3))
    ecospa.save_pretrained(model, tmp_path / "m")
    again = ecospa.from_pretrained(tmp_path / "m")
    assert torch.equal(again(IMAGES), model(IMAGES))
    assert again.pretrained_cfg == model.pretrained_cfg


@torch.no_grad()
def test_another_pooling_and_other_means_come_back(tmp_path: Path) -> None:
    model = own_timm()
    model.reset_classifier(5, "avg")
    model.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)
    ecospa.save_pretrained(model, tmp_path / "m")
    again = ecospa.from_pretrained(tmp_path / "m")
    assert torch.equal(again(IMAGES), model(IMAGES)) and again.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)


class Doubling(nn.Module):
    """An activation of the user's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * torch.relu(x)


def _own_activation(model: Any) -> None:
    model.bert.encoder.layer[1].intermediate.intermediate_act_fn = Doubling()


def _own_epsilon(model: Any) -> None:
    model.bert.encoder.layer[0].output.LayerNorm.eps = 0.5


def _steering_hook(model: Any) -> None:
    model.bert.embeddings.register_forward_hook(lambda module, given, output: output * 1.5)


def _own_buffer(model: Any) -> None:
    model.bert.embeddings.token_type_ids.fill_(1)


def _patched_mlp(model: Any) -> None:
    part = model.bert.encoder.layer[0].intermediate
    part.forward = types.MethodType(lambda self, x: torch.relu(self.dense(x)), part)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_own_activation, r"layer\.1\.intermediate\.intermediate_act_fn is a .*Doubling"),
        (_own_epsilon, r"output\.LayerNorm\.eps is 0\.5"),
        (_steering_hook, "embeddings has a forward hook"),
        (_own_buffer, "token_type_ids is a buffer that is not saved"),
        (_patched_mlp, r"intermediate\.forward was replaced"),
    ],
)
def test_another_function_of_the_same_shapes_is_refused_and_named(change: Any, named: str, tmp_path: Path) -> None:
    model = cut("bert")
    ecospa.save_pretrained(model, tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    change(model)
    with pytest.raises(ecospa.CheckpointError, match=f"(?i){named}"):
        ecospa.save_pretrained(model, tmp_path / "m")
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
    ecospa.save_pretrained(model, tmp_path / "m", verify=False)


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    model, calls = cut("llama-gqa").train(), []
    model.model.layers[0].eval()
    model.register_forward_pre_hook(lambda *given: calls.append(1))
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    ecospa.save_pretrained(model, tmp_path / "m")
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(calls) == 1 and all(parameter.grad is None for parameter in model.parameters())


def test_a_same_forward_that_was_patched_is_saved(tmp_path: Path) -> None:
    model = cut("llama-gqa")
    for layer in model.model.layers:
        body = "down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))"
        layer.mlp.forward = types.MethodType(eval(f"lambda self, x: self.{body}", {"torch": torch}), layer.mlp)
    ecospa.save_pretrained(model, tmp_path / "m")
    assert torch.equal(
        logits(ecospa.from_pretrained(tmp_path / "m"), inputs("llama-gqa")), logits(model, inputs("llama-gqa"))
    )
    assert "forward" in vars(model.model.layers[0].mlp)


@pytest.mark.parametrize("part", ["", "model", "model.layers.1"])
@torch.no_grad()
def test_compiled_parts_are_saved_by_their_own_names(part: str, tmp_path: Path) -> None:
    model = ZOO["llama-gqa"].build().eval()
    twin = copy.deepcopy(model)
    if part:
        parent, _, name = part.rpartition(".")
        model.get_submodule(parent)._modules[name] = torch.compile(model.get_submodule(part), backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    ecospa.apply_plan(model, random_plan(model, 4))
    ecospa.apply_plan(twin, random_plan(twin, 4))
    ecospa.save_pretrained(model, tmp_path / "m")
    again = ecospa.from_pretrained(tmp_path / "m")
    assert torch.equal(logits(again, inputs("llama-gqa")), logits(twin, inputs("llama-gqa")))
    assert not part or type(model.get_submodule(part)).__name__ == "OptimizedModule"


def test_a_model_that_disagrees_with_itself_is_refused(tmp_path: Path) -> None:
    model = cut("gpt2")
    layer = model.transformer.h[0].mlp.c_proj
    layer.weight.data = layer.weight.data[:-1]
    with pytest.raises(ecospa.CheckpointError, match="does not agree with itself"):
        ecospa.save_pretrained(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_a_sharded_save_over_another_one_is_the_new_model(tmp_path: Path) -> None:
    model = cut("gpt2")
    ecospa.save_pretrained(model, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("mine")
    for options in ({"max_shard_size": "20KB"}, {}):
        for parameter in model.parameters():
            parameter.add_(0.1)
        ecospa.save_pretrained(model, tmp_path / "m", **options)
        assert torch.equal(
            logits(ecospa.from_pretrained(tmp_path / "m"), inputs("gpt2")), logits(model, inputs("gpt2"))
        )
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "config.json", "ecospa.json", "generation_config.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["llama-gqa", "vit", "bert"])
@torch.no_grad()
def test_a_model_in_hand_is_filled_from_any_folder(kind: str, tmp_path: Path) -> None:
    model = cut(kind)
    ecospa.save_pretrained(model, tmp_path / "m", max_shard_size="20KB")
    mine = ZOO[kind].build()
    assert ecospa.from_pretrained(tmp_path / "m", model=mine) is mine
    batch = {name: value.float() if value.is_floating_point() else value for name, value in inputs(kind).items()}
    assert torch.equal(logits(mine, batch), logits(model, batch))


def test_a_model_in_hand_of_another_head_or_vocabulary_stays_as_it_was(tmp_path: Path) -> None:
    ecospa.save_pretrained(cut("bert"), tmp_path / "m")
    config = transformers.BertConfig.from_pretrained(tmp_path / "m")
    del config.ecospa
    other = transformers.BertForSequenceClassification(config)
    larger = transformers.BertForMaskedLM(transformers.BertConfig(**{**config.to_diff_dict(), "vocab_size": 99}))
    for model in (other, larger):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ecospa.CheckpointError, match=r"into=|do not fit this model"):
            ecospa.from_pretrained(tmp_path / "m", model=model)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_encoder_goes_under_another_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = cut("bert")
    ecospa.save_pretrained(model, tmp_path / "m")
    tagger = ecospa.from_pretrained(tmp_path / "m", into=transformers.BertForTokenClassification, num_labels=3)
    assert "fresh, to be trained: classifier.bias, classifier.weight" in caplog.text
    for name, value in model.bert.state_dict().items():
        assert torch.equal(tagger.bert.state_dict()[name], value)
    ecospa.save_pretrained(tagger, tmp_path / "tagger")
    bare = ecospa.from_pretrained(tmp_path / "m", into=transformers.BertModel)
    assert torch.equal(bare.encoder.state_dict()[next(iter(bare.encoder.state_dict()))],
                       model.bert.encoder.state_dict()[next(iter(model.bert.encoder.state_dict()))])  # fmt: skip
    ecospa.save_pretrained(bare, tmp_path / "bare")
    again = ecospa.from_pretrained(tmp_path / "bare", into=transformers.BertForMaskedLM)
    assert ecospa.from_pretrained(tmp_path / "tagger", num_labels=7, ignore_mismatched_sizes=True).num_labels == 7
    assert {pair.width for pair in ecospa.coupled_pairs(again)} == {p.width for p in ecospa.coupled_pairs(model)}
    with pytest.raises(ecospa.CheckpointError, match="BertConfig"):
        ecospa.from_pretrained(tmp_path / "m", into=transformers.GPT2Model)


@pytest.mark.parametrize("kind", ["BertModel", "ViTModel"])
def test_an_encoder_without_pooler_comes_back_without(kind: str, tmp_path: Path) -> None:
    base = ZOO["bert" if kind == "BertModel" else "vit"].build()
    model = getattr(transformers, kind)(base.config, add_pooling_layer=False)
    ecospa.save_pretrained(model, tmp_path / "m")
    assert ecospa.from_pretrained(tmp_path / "m").pooler is None


def test_a_configuration_that_was_cut_builds_the_cut_model(tmp_path: Path) -> None:
    model = cut("llama-gqa")
    with pytest.raises(ecospa.CheckpointError, match="kind="):
        ecospa.from_config(model.config)
    built = ecospa.from_config(model.config, type(model))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in built.state_dict().items()} == shapes
    full = type(model)(copy.deepcopy(model.config))
    with pytest.warns(UserWarning, match=r"ecospa\.from_config"):
        ecospa.save_pretrained(full, tmp_path / "full")
    again = ecospa.from_pretrained(tmp_path / "full")
    assert all(torch.equal(value, full.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("kind", ["llama-gqa", "timm-vit"])
def test_a_plan_of_a_cut_folder_sees_the_cut_model(kind: str, tmp_path: Path) -> None:
    model = cut(kind)
    ecospa.save_pretrained(model, tmp_path / "m")
    empty = empty_model(str(tmp_path / "m"))
    assert ecospa.accounting.parameters(empty) == ecospa.accounting.parameters(model)
    assert next(empty.parameters()).is_meta


@pytest.mark.parametrize(
    "changes",
    [
        {"model_args": {"checkpoint_path": "x.pth"}},
        {"model_args": {"pretrained": True}},
        {"model_args": {"pretrained_cfg": {"file": "x.pth"}}},
        {"model_args": {"embed_layer": "x"}},
        {"model_args": {"act_layer": {"layer": "torch.activation.nn", "settings": {}}}},
        {"model_args": {"norm_layer": {"layer": "os.system", "settings": {}}}},
        {"architecture": "hf-hub:timm/x"},
        {"architecture": "local-dir:/x"},
        {"architecture": "../vit_tiny_patch16_224"},
        {"architecture": 7},
    ],
)
def test_timm_is_given_nothing_but_what_we_write(changes: dict[str, Any], tmp_path: Path, no_network: None) -> None:
    ecospa.save_pretrained(own_timm(), tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    config.update(
        changes if "architecture" in changes else {"model_args": {**config["model_args"], **changes["model_args"]}}
    )
    path.write_text(json.dumps(config))
    ecospa.manifest.renew_manifest(tmp_path / "m")
    with pytest.raises(ecospa.CheckpointError, match=r"config\.json"):
        ecospa.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModel": "x--y.Z"}},
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "someone/kernel"},
        {"text_config": {"attn_implementation": "a/b"}},
        {"architectures": ["pipeline"]},
        {"architectures": []},
        {"use_pretrained_backbone": True},
    ],
)
def test_nothing_leads_out_of_a_folder(changes: dict[str, Any], tmp_path: Path, no_network: None) -> None:
    ecospa.save_pretrained(cut("gpt2"), tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    ecospa.manifest.renew_manifest(tmp_path / "m")
    with pytest.raises(ecospa.CheckpointError, match=r"config\.json"):
        ecospa.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("kind", ["gpt2", "timm-vit", "vit"])
def test_strays_are_not_read_and_no_socket_is_opened(kind: str, tmp_path: Path, no_network: None) -> None:
    model = cut(kind)
    ecospa.save_pretrained(model, tmp_path / "m")
    weights = (tmp_path / "m" / "model.safetensors").read_bytes()
    (tmp_path / "m" / "z.safetensors").write_bytes(weights[:-4] + b"abcd")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"never read")
    adapter = {"base_model_name_or_path": "nobody/nowhere", "peft_type": "LORA"}
    (tmp_path / "m" / "adapter_config.json").write_text(json.dumps(adapter))
    again = ecospa.from_pretrained(tmp_path / "m").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())

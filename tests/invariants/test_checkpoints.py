"""Invariant 7: save and load are bitwise, nothing missing or unexpected; a damaged checkpoint is named."""

import json

import pytest
import timm
import torch

import ecospa
from tests.model_zoo import ZOO, inputs, logits, random_plan

KINDS = list(ZOO)


def reload_float64(folder, kind):
    """The dtype of the checkpoint is the model's; a timm model's twin may be given, too."""
    model = ecospa.from_pretrained(folder)
    if kind.startswith("timm"):
        twin = ecospa.from_pretrained(folder, model=ZOO[kind].build().double())
        assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True))
    return model


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_round_trip_is_bitwise(kind, tmp_path):
    model = ZOO[kind].build().double().eval()
    ecospa.apply_plan(model, random_plan(model, 21))
    ecospa.save_pretrained(model, tmp_path / "a")
    again = reload_float64(tmp_path / "a", kind)
    assert torch.equal(logits(again, inputs(kind)), logits(model, inputs(kind)))
    assert type(again) is type(model)
    mine, theirs = model.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert {p.name: p.width for p in ecospa.coupled_pairs(again)} == {
        p.name: p.width for p in ecospa.coupled_pairs(model)
    }
    # a second cut, save and load
    ecospa.apply_plan(again, random_plan(again, 22))
    ecospa.save_pretrained(again, tmp_path / "b")
    assert torch.equal(logits(reload_float64(tmp_path / "b", kind), inputs(kind)), logits(again, inputs(kind)))
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.pt"))


@torch.no_grad()
def test_timm_model_is_rebuilt_from_its_name(tmp_path):
    model = ZOO["timm-deit-distilled"].build().eval()
    ecospa.apply_plan(model, random_plan(model, 3))
    ecospa.save_pretrained(model, tmp_path)
    batch = {"x": torch.randn(2, 3, 8, 8)}
    assert torch.equal(logits(ecospa.from_pretrained(tmp_path), batch), logits(model, batch))


def test_timm_model_keeps_its_drop_rates(tmp_path):
    """No parameter tells of them: without this a resumed run would train on without stochastic depth."""
    rates = {"drop_rate": 0.1, "pos_drop_rate": 0.15, "proj_drop_rate": 0.2, "attn_drop_rate": 0.25}
    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 4, "img_size": 8, "patch_size": 4, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", **sizes, **rates, patch_drop_rate=0.3, drop_path_rate=0.4)
    ecospa.apply_plan(model, random_plan(model, 3))
    ecospa.save_pretrained(model, tmp_path)
    images, again = torch.randn(2, 3, 8, 8), ecospa.from_pretrained(tmp_path)
    for state in (model.eval(), again), (model.train(), again.train()):
        torch.manual_seed(0)
        first = state[0](images)
        torch.manual_seed(0)
        assert torch.equal(state[1](images), first)
    assert not torch.equal(first, model.eval()(images))


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert"])
@torch.no_grad()
def test_sharded_and_dense(kind, tmp_path):
    model = ZOO[kind].build().eval()
    ecospa.save_pretrained(model, tmp_path / "dense")
    assert torch.equal(logits(ecospa.from_pretrained(tmp_path / "dense"), inputs(kind)), logits(model, inputs(kind)))
    ecospa.apply_plan(model, random_plan(model, 4))
    ecospa.save_pretrained(model, tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    again = ecospa.from_pretrained(tmp_path / "sharded")
    assert torch.equal(logits(again, inputs(kind)), logits(model, inputs(kind)))


@pytest.mark.parametrize("kind", ["gpt2", "llama-bias-tied"])
def test_ties_survive_and_training_goes_on(kind, tmp_path):
    model = ZOO[kind].build()
    ecospa.apply_plan(model, random_plan(model, 4))
    ecospa.save_pretrained(model, tmp_path)
    again = ecospa.from_pretrained(tmp_path)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    logits(again, inputs(kind)).square().mean().backward()
    assert all(p.grad is not None for p in again.parameters())


def saved(tmp_path):
    model = ZOO["gpt2"].build()
    ecospa.apply_plan(model, random_plan(model, 4))
    ecospa.save_pretrained(model, tmp_path)
    return tmp_path


@pytest.mark.parametrize("victim", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_truncated_file_is_named(tmp_path, victim, with_manifest):
    folder = saved(tmp_path)
    path = folder / victim
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if not with_manifest:
        (folder / "ecospa.json").unlink()
    with pytest.raises(ecospa.CheckpointError, match=victim):
        ecospa.from_pretrained(folder)


def test_one_flipped_byte_is_found(tmp_path):
    folder = saved(tmp_path)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ecospa.CheckpointError, match=r"model\.safetensors is truncated or was edited"):
        ecospa.from_pretrained(folder)


@pytest.mark.parametrize("change", ["narrower", "unknown", "nonsense", "gone"])
def test_edited_widths_are_found(tmp_path, change):
    folder = saved(tmp_path)
    (folder / "ecospa.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    widths = config["ecospa"]["widths"]
    if change == "narrower":
        widths["transformer.h.0.mlp.ffn"] -= 1
    if change == "unknown":
        widths["transformer.h.9.mlp.ffn"] = 8
    if change == "nonsense":
        widths["transformer.h.0.mlp.ffn"] = "wide"
    if change == "gone":
        del config["ecospa"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ecospa.CheckpointError, match=tmp_path.name):
        ecospa.from_pretrained(folder)


def test_missing_files_and_foreign_models_are_named(tmp_path):
    with pytest.raises(ecospa.CheckpointError, match="no folder"):
        ecospa.from_pretrained(tmp_path / "nowhere")
    folder = saved(tmp_path)
    with pytest.raises(ecospa.CheckpointError, match="another model"):
        ecospa.from_pretrained(folder, model=ZOO["bert"].build())
    (folder / "model.safetensors").unlink()
    with pytest.raises(ecospa.CheckpointError, match=r"model\.safetensors is missing"):
        ecospa.from_pretrained(folder)

"""ecospa.verify: every block is tried, a cut model agrees with itself, and the command says so by its exit code."""

import json

import pytest
import torch
from torch import nn

import ecospa
from ecospa.__main__ import main
from tests.ecospa.test_exactness import SubNorm
from tests.model_zoo import ZOO, random_plan

KINDS = ("gpt2", "llama-gqa", "qwen3", "bert", "vit", "timm-qk-norm")


def cut(kind):
    model = ZOO[kind].build().eval()
    ecospa.apply_plan(model, random_plan(model, 3))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_whole_and_cut_models_are_exact(kind):
    for model in (ZOO[kind].build(), cut(kind)):
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        found = ecospa.verify(model)
        assert found.exact, str(found)
        assert len(found.blocks) == 2 and all(0 <= block.difference < 1e-5 for block in found.blocks)
        assert "stock" in str(found) and str(found).endswith("agrees with itself.")
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_part_of_ones_own_stands_in_the_table():
    model = ZOO["llama-gqa"].build()
    model.model.layers[1].mlp.__class__ = SubNorm
    found = ecospa.verify(model)
    assert not found.exact
    assert [bool(block.problem) for block in found.blocks] == [False, True]
    assert "SubNorm" in str(found) and "1 of 2 blocks cannot be cut" in str(found)


def crossed(model):
    model.model.layers[0].self_attn.kept_qk = model.model.layers[0].self_attn.kept_qk.flip(1)


def split(model):
    model.model.layers[0].self_attn.kept_qk[:, -1] = 0


def edited(model):
    model.config.ecospa["widths"]["model.layers.1.mlp.ffn"] += 1


def forgotten(model):
    del model.config.ecospa


def widened(model):
    linear = model.model.layers[0].mlp.up_proj
    linear.weight.data = torch.cat([linear.weight.data, linear.weight.data[:1]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (crossed, "kept_qk holds indices that are not ascending"),
        (split, "kept_qk splits rotary partners"),
        (edited, r"config\.ecospa says \d+ for model\.layers\.1\.mlp\.ffn"),
        (forgotten, r"config\.ecospa is missing"),
        (widened, "gate_proj.weight has|up_proj.weight has"),
    ],
)
def test_a_model_that_does_not_agree_with_itself_is_told(damage, message):
    model = cut("llama-gqa")
    damage(model)
    found = ecospa.verify(model)
    assert not found.exact
    import re

    assert any(re.search(message, text) for text in found.disagreements), found.disagreements


def test_a_model_without_pairs_is_refused():
    with pytest.raises(ecospa.UnsupportedModelError, match="no block of a known family"):
        ecospa.verify(nn.Linear(2, 2))


def test_the_command_verifies_a_folder(tmp_path, capsys):
    ecospa.save_pretrained(cut("gpt2"), tmp_path / "good")
    assert main(["verify", str(tmp_path / "good")]) == 0
    out = capsys.readouterr().out
    assert "| transformer.h.0 | stock |" in out and "ecospa.json" not in out
    cut("gpt2").save_pretrained(tmp_path / "unsealed")
    assert main(["verify", str(tmp_path / "unsealed")]) == 0
    assert "no ecospa.json here: the files were not compared with checksums" in capsys.readouterr().out
    weights = next((tmp_path / "good").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["verify", str(tmp_path / "good")]) == 1
    assert "damaged: " in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert "FOLDER is" in capsys.readouterr().err


def test_the_commands_explain_themselves(capsys):
    for arguments, words in (
        (["--help"], ("plan", "verify")),
        (["plan", "--help"], ("MODEL", "--target_size", "share of the parameters that is left")),
        (["verify", "--help"], ("FOLDER", "Exit code")),
    ):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        printed = capsys.readouterr().out
        assert done.value.code == 0 and all(word in printed for word in words)
    with pytest.raises(SystemExit) as done:
        main([])
    assert done.value.code == 2


def test_plan_reads_its_arguments_as_before(tmp_path, capsys):
    ZOO["gpt2"].build().config.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["GPT2LMHeadModel"]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    options = ["--target_size", "0.6", "--target_scope", "blocks", "--width_multiple", "2", "--seq", "16", "--json"]
    assert main(["plan", str(tmp_path), *options]) == 0
    assert json.loads(capsys.readouterr().out)

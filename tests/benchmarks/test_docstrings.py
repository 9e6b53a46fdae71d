"""The smoke tier's text: real English, the same every time, its splits apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data.source import Corpus
from benchmarks.data.sources import docstrings

BYTES = 60_000


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return docstrings.load("default", "validation", "smoke", BYTES)


def test_the_text_is_the_same_every_time(corpus: Corpus) -> None:
    again = docstrings.load("default", "validation", "smoke", BYTES)
    assert again.fingerprint == corpus.fingerprint
    assert again.train == corpus.train


def test_the_amount_is_about_what_was_asked(corpus: Corpus) -> None:
    size = sum(len(text.encode()) for text in corpus.train)
    assert 0.8 * BYTES < size < 2 * BYTES
    assert corpus.evaluation


def test_no_document_is_there_twice_or_in_both_splits(corpus: Corpus) -> None:
    everything = corpus.train + corpus.evaluation
    assert len(set(everything)) == len(everything)


def test_it_is_english_prose(corpus: Corpus) -> None:
    words = " ".join(corpus.train).lower().split()
    assert sum(word in {"the", "a", "of", "is", "to", "and", "in"} for word in words) / len(words) > 0.1


def test_nothing_is_imported_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    text = "A sentence that is long enough to count. " * 8
    (tmp_path / "good.py").write_text(f'"""{text}"""\nraise SystemExit("it was imported")\n')
    (tmp_path / "broken.py").write_text(f'"""{text}""" def\n')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "skipped.py").write_text(f'"""Not this. {text}"""\n')
    assert [found for _, _, found in docstrings.documents("made", tmp_path)] == [text.strip()]


def test_the_key_names_the_versions() -> None:
    assert docstrings.key("default").startswith("python==")
    assert "numpy==" in docstrings.key("default")
    assert docstrings.missing("default", "smoke") is None

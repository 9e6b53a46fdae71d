"""Tokenizer, packing and the prepared text: nothing lost, nothing scored twice, made once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.data.text import tokenized
from benchmarks.data.text.packing import IGNORED, evaluation_windows, pack, training_sequences
from benchmarks.data.text.tokenizer import END_OF_TEXT, load_tokenizer, train_tokenizer
from tests.benchmarks.tiny_runs import corpus, settings, use_tiny_text


def test_the_trained_tokenizer_gives_back_every_text() -> None:
    tokenizer = train_tokenizer(corpus().train, 300)
    assert len(tokenizer) == 300
    for text in ("the model learns", "Ünïcödé → 三 \t\n  spaces  ", corpus().evaluation[0]):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == 0


def test_a_vocabulary_that_cannot_hold_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary is 256; it must be at least 257"):
        train_tokenizer(["text"], 256)


def test_packing_puts_the_mark_around_every_document() -> None:
    assert pack([[1, 2], [3]], 0).tolist() == [0, 1, 2, 0, 3, 0]
    assert training_sequences(pack([[1, 2], [3], [4]], 0), 3).tolist() == [[0, 1, 2], [0, 3, 0]]
    with pytest.raises(ValueError, match="3 tokens; one sequence needs 4"):
        training_sequences(np.arange(3), 4)


@given(tokens=st.integers(2, 60), length=st.integers(2, 12), data=st.data())
def test_every_token_but_the_first_is_scored_exactly_once(tokens: int, length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length - 1))
    stream = np.arange(100, 100 + tokens)
    inputs, labels = evaluation_windows(stream, length, stride)
    assert inputs.shape == labels.shape
    assert (labels[:, 0] == IGNORED).all()  # the model has nothing to predict it from
    scored = labels != IGNORED
    assert sorted(labels[scored].tolist()) == stream[1:].tolist()
    assert (inputs[scored] == labels[scored]).all()
    before = np.roll(inputs, 1, axis=1)
    assert (before[scored] == labels[scored] - 1).all()  # its context is the token before it in the stream


def test_a_stride_that_skips_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stride is 4; it must be in 1 .. 3"):
        evaluation_windows(np.arange(9), 4, 4)


def test_the_prepared_text_is_exact_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    wanted = settings()
    text = tokenized.prepare(wanted.data, wanted.protocol, "smoke", tmp_path)
    documents = corpus().evaluation
    assert text.words == sum(len(document.split()) for document in documents)
    assert text.size == sum(len(document.encode()) for document in documents)
    assert text.fingerprint == corpus().fingerprint
    assert (text.evaluation == text.end_of_text).sum() == len(documents) + 1
    monkeypatch.setattr(tokenized, "_make", None)  # a second making would fail
    again = tokenized.prepare(wanted.data, wanted.protocol, "smoke", tmp_path)
    assert (again.train == text.train).all() and (again.evaluation == text.evaluation).all()
    assert dataclasses.replace(again, train=text.train, evaluation=text.evaluation) == text


def test_a_trained_models_text_is_delimited_by_its_bos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    wanted, place = settings(), tmp_path / "model"
    tokenizer = train_tokenizer(corpus().train, 300)
    tokenizer.save_pretrained(place)
    alike = tokenized.prepare(wanted.data, wanted.protocol, "smoke", tmp_path, place)
    assert alike.end_of_text == tokenizer.eos_token_id == tokenizer.bos_token_id
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.save_pretrained(place)
    text = tokenized.prepare(wanted.data, wanted.protocol, "smoke", tmp_path, place)
    assert text.end_of_text == tokenizer.bos_token_id != tokenizer.eos_token_id
    assert (text.evaluation == tokenizer.bos_token_id).sum() == len(corpus().evaluation) + 1
    assert not (text.train == tokenizer.eos_token_id).any()


def test_the_evaluation_text_ends_at_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    wanted = settings()
    few = dataclasses.replace(wanted.data, evaluation_tokens=60)
    text = tokenized.prepare(few, wanted.protocol, "smoke", tmp_path)
    assert 60 <= len(text.evaluation) < 200
    assert text.evaluation[-1] == text.end_of_text
    counted = 0
    for number, document in enumerate(corpus().evaluation, start=1):
        counted += len(document.split())
        if number == (text.evaluation == text.end_of_text).sum() - 1:
            break
    assert text.words == counted


def test_a_ready_made_tokenizer_that_is_not_there_says_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    with pytest.raises(ValueError, match=r"tokenizer gpt2.*tier 'gpu'.*tokenizers/gpt2.*ECOSPA_DATA=hub"):
        load_tokenizer("gpt2", "gpu")

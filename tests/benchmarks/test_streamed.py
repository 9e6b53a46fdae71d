"""Text that is streamed to a mapped file is the same text that would have been loaded whole."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.data import source as sources
from benchmarks.data.source import Corpus, Source
from benchmarks.data.sources import c4
from benchmarks.data.text import streamed, tokenized
from benchmarks.data.text.streamed import StreamedDataSpec
from benchmarks.data.text.tokenizer import end_of_text, train_tokenizer
from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.tasks.language_model import PackedText
from tests.benchmarks.tiny_runs import corpus, run_context, run_of, train

PROTOCOL = ProtocolSpec("ready", sequence_length=16, stride=15, split="validation")
WANTED = StreamedDataSpec("tiny", "default", train_tokens=200, evaluation_tokens=40)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A source that can be streamed and counts the documents that were read; a tokenizer that is at hand."""
    read = [0]

    def stream(configuration: str, split: str, tier: str) -> Iterator[str]:
        for text in corpus().train if split == "train" else corpus().evaluation:
            read[0] += 1
            yield text

    def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
        return corpus()

    source = Source("tiny", load, lambda configuration: "1", lambda configuration, tier: None, stream)
    monkeypatch.setattr(sources, "find", lambda name: source)
    tokenizer = train_tokenizer(corpus().train, 300)
    for module in (streamed, tokenized):
        monkeypatch.setattr(module, "load_tokenizer", lambda name, tier: tokenizer)
    return read


def test_the_tokens_are_those_of_the_text_loaded_whole(tiny: list[int], tmp_path: Path) -> None:
    whole = tokenized.prepare(DataSpec("tiny", "default", evaluation_tokens=40), PROTOCOL, "smoke", tmp_path)
    text = streamed.prepare_streamed(WANTED, PROTOCOL, "smoke", tmp_path)
    assert isinstance(text.train, np.memmap) and text.train.dtype == np.uint16
    assert 200 <= len(text.train) < 300 and text.train[-1] == text.end_of_text
    assert (text.train == whole.train[: len(text.train)]).all()
    assert (text.evaluation == whole.evaluation).all()
    assert (text.words, text.size, text.end_of_text) == (whole.words, whole.size, whole.end_of_text)


def test_no_more_documents_are_read_than_needed_and_they_are_fingerprinted(tiny: list[int], tmp_path: Path) -> None:
    text = streamed.prepare_streamed(WANTED, PROTOCOL, "smoke", tmp_path)
    documents = int((text.train == text.end_of_text).sum()) - 1
    held_out = int((text.evaluation == text.end_of_text).sum()) - 1
    assert tiny == [documents + held_out]
    assert text.fingerprint == Corpus(corpus().train[:documents], corpus().evaluation[:held_out]).fingerprint


def test_it_is_written_once_and_a_killed_writing_does_not_count(tiny: list[int], tmp_path: Path) -> None:
    one = streamed.prepare_streamed(WANTED, PROTOCOL, "smoke", tmp_path)
    read = tiny[0]
    again = streamed.prepare_streamed(WANTED, PROTOCOL, "smoke", tmp_path)
    assert tiny == [read] and (one.train == again.train).all() and one.fingerprint == again.fingerprint
    tokens = one.train.copy()
    (place,) = folders(tmp_path)
    half = place.with_name(f"{place.name}.partial")
    place.rename(half)
    (half / "numbers.json").unlink()
    (half / "train.tokens").write_bytes(b"half")
    assert (streamed.prepare_streamed(WANTED, PROTOCOL, "smoke", tmp_path).train == tokens).all()
    assert folders(tmp_path) == [place]  # of the killed writing nothing is left


def folders(work: Path) -> list[Path]:
    """Return the folders that were written, without their locks."""
    return [path for path in (work / "text").iterdir() if path.is_dir()]


def test_two_runs_at_one_time_do_not_both_write(tiny: list[int], tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(
            pool.map(lambda _: streamed.prepare_streamed(WANTED, PROTOCOL, "smoke", tmp_path).fingerprint, range(2))
        )
    read = tiny[0]
    streamed.prepare_streamed(WANTED, PROTOCOL, "smoke", tmp_path / "alone")
    assert both[0] == both[1] and tiny[0] == 2 * read


def test_a_stream_that_ends_too_early_is_an_error_and_leaves_nothing(tiny: list[int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train_tokens is 100000, but source 'tiny' ends after \d+; ask for fewer"):
        streamed.prepare_streamed(replace(WANTED, train_tokens=100_000), PROTOCOL, "smoke", tmp_path)
    assert folders(tmp_path) == []


def test_a_source_that_cannot_be_streamed_is_refused(
    tiny: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(sources.find("tiny"), stream=None)
    monkeypatch.setattr(sources, "find", lambda name: whole)
    with pytest.raises(ValueError, match="source 'tiny' cannot be streamed; take a DataSpec"):
        streamed.prepare_streamed(WANTED, PROTOCOL, "smoke", tmp_path)


def test_a_run_on_mapped_tokens_equals_one_on_loaded_ones(tiny: list[int], tmp_path: Path) -> None:
    run = run_of()
    outcomes = []
    for data in (DataSpec("tiny", "default"), StreamedDataSpec("tiny", "default", train_tokens=1)):
        if isinstance(data, StreamedDataSpec):  # as many tokens as the whole text has
            tokens = len(tokenized.prepare(DataSpec("tiny", "default"), PROTOCOL, "smoke", tmp_path).train)
            data = replace(data, train_tokens=tokens)
        settings = replace(run.cell.settings, data=data, protocol=PROTOCOL)
        outcomes.append(train(replace(run, cell=replace(run.cell, settings=settings)), run_context(tmp_path)))
    one, two = outcomes
    assert one.loss_curve == two.loss_curve and one.data_fingerprint == two.data_fingerprint
    assert one.metrics["eval_loss"] == two.metrics["eval_loss"]


def test_examples_of_a_mapped_file_are_whole_numbers(tmp_path: Path) -> None:
    np.arange(8, dtype=np.uint16).tofile(tmp_path / "x")
    examples = PackedText(np.memmap(tmp_path / "x", dtype=np.uint16, mode="r").reshape(2, 4))
    assert len(examples) == 2 and examples[1]["input_ids"].tolist() == examples[1]["labels"].tolist() == [4, 5, 6, 7]


def test_the_mark_between_documents_is_the_tokenizers_own() -> None:
    assert end_of_text(train_tokenizer(corpus().train, 300)) == 0
    other = SimpleNamespace(get_vocab=lambda: {"</s>": 1}, eos_token_id=1)
    assert end_of_text(other) == 1  # type: ignore[arg-type]


def test_c4_is_read_from_a_mirror_and_missing_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset, config

    monkeypatch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # seconds, at the end of every stream
    monkeypatch.setenv("ECOSPA_DATA", str(tmp_path))
    with pytest.raises(sources.MissingSourceError, match=r"source 'c4', tier 'cpu'.*allenai__c4/en"):
        c4.stream("en", "train", "cpu")
    place = tmp_path / "allenai__c4" / "en"
    place.mkdir(parents=True)
    for split, texts in (("train", ["one", "two"]), ("validation", ["three"])):
        Dataset.from_dict({"text": texts}).to_parquet(place / f"{split}-00000-of-00001.parquet")
    read = list(c4.stream("en", "train", "cpu"))
    assert sorted(read) == ["one", "two"] and list(c4.stream("en", "train", "cpu")) == read  # in a seeded order
    assert c4.load("en", "validation", "cpu", 3) == Corpus((read[0],), ("three",))
    assert c4.SOURCE.missing("en", "cpu") is None and c4.SOURCE.key("en") != c4.SOURCE.key("other")


def test_c4_of_the_hub_is_streamed_in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    class Rows(list):
        def shuffle(self, seed: int, buffer_size: int) -> Rows:
            asked.append((seed, buffer_size))
            return self

    def load_dataset(*names: str, split: str, streaming: bool) -> Rows:
        asked.append((*names, split, streaming))
        return Rows({"text": f"{split} {number}"} for number in range(3))

    monkeypatch.setenv("ECOSPA_DATA", "hub")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert c4.load("en", "validation", "cpu", 7).train == ("train 0",)
    assert asked[:2] == [("allenai/c4", "en", "train", True), (42, 10_000)]

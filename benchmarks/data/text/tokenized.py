"""Text made ready for training once and kept in the work folder: tokens, counts and the corpus's fingerprint.

Reading a corpus and training a vocabulary takes longer than a smoke run, and every run of an experiment uses the same.
The kept file is named by everything that decides its content.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import source as sources
from benchmarks.data.cache import make_once
from benchmarks.data.text.packing import pack
from benchmarks.data.text.tokenizer import document_mark, end_of_text, load_tokenizer, train_tokenizer, trained_size
from benchmarks.specs.language import DataSpec, ProtocolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LAYOUT = 1  # raise when the meaning of the kept file changes
_ENTRIES = ("train", "evaluation")


@dataclass(frozen=True)
class PreparedText:
    """A corpus as tokens.

    Attributes:
        train: integers (tokens,), the training stream with `end_of_text` around every document.
        evaluation: int64 (tokens,), the evaluation stream, whole documents.
        words: whitespace-separated words of the evaluation documents.
        size: UTF-8 bytes of the evaluation documents.
        vocabulary: entries of the tokenizer.
        end_of_text: its mark between documents; BOS where the tokenizer is that of a trained model.
        fingerprint: SHA-256 of the corpus.
    """

    train: NDArray[np.integer[Any]]
    evaluation: NDArray[np.int64]
    words: int
    size: int
    vocabulary: int
    end_of_text: int
    fingerprint: str


def prepare(
    data: DataSpec, protocol: ProtocolSpec, tier: str, folder: Path, tokenizer_place: Path | str | None = None
) -> PreparedText:
    """The text of an experiment, from the work folder or made now and put there.

    Args:
        data: which text.
        protocol: its tokenizer, and which split is held out.
        tier: of the run.
        folder: of the caches.
        tokenizer_place: folder or Hub id of the trained model whose tokenizer is used instead of the protocol's.

    Raises:
        MissingSourceError: the source is not at hand.
    """
    origin = sources.find(data.source)
    reason = origin.missing(data.configuration, tier)
    if reason is not None:
        raise sources.MissingSourceError(reason)
    wanted: dict[str, Any] = {**asdict(data), "tokenizer": protocol.tokenizer, "split": protocol.split}
    wanted |= {"key": origin.key(data.configuration), "layout": _LAYOUT}
    ready = None if tokenizer_place is None else _ready(tokenizer_place)
    if tokenizer_place is not None and ready is not None:
        wanted["tokenizer_key"] = _tokenizer_key(tokenizer_place)
        if document_mark(ready) != end_of_text(ready):
            wanted["mark"] = document_mark(ready)
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / "text" / f"{data.source}-{name}.npz"

    def make(partial: Path) -> None:
        corpus = origin.load(data.configuration, protocol.split, tier, data.train_bytes)
        if ready is None:
            tokenizer = _tokenizer(corpus, protocol, tier)
            _write(partial, _make(corpus, data, tokenizer, end_of_text(tokenizer)))
        else:
            _write(partial, _make(corpus, data, ready, document_mark(ready)))

    make_once(path, make)
    return _read(path)


def tokenizer_of(data: DataSpec, protocol: ProtocolSpec, tier: str) -> PreTrainedTokenizerBase:
    """The tokenizer that `prepare` uses: a ready-made one, or the same one trained on the same text again.

    Raises:
        MissingSourceError: text or tokenizer are not at hand.
    """
    corpus = sources.find(data.source).load(data.configuration, protocol.split, tier, data.train_bytes)
    return _tokenizer(corpus, protocol, tier)


def _tokenizer(corpus: sources.Corpus, protocol: ProtocolSpec, tier: str) -> PreTrainedTokenizerBase:
    size = trained_size(protocol.tokenizer)
    return load_tokenizer(protocol.tokenizer, tier) if size is None else train_tokenizer(corpus.train, size)


def _ready(place: Path | str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
    return tokenizer


def _tokenizer_key(place: Path | str) -> str:
    """The vocabulary itself where it lies in a folder, the name of one on the Hub."""
    return hashlib.sha256((place / "tokenizer.json").read_bytes()).hexdigest() if isinstance(place, Path) else place


def _make(corpus: sources.Corpus, data: DataSpec, tokenizer: PreTrainedTokenizerBase, mark: int) -> PreparedText:
    held_out: list[list[int]] = []
    texts: list[str] = []
    tokens = 0
    for text in corpus.evaluation:
        if data.evaluation_tokens is not None and tokens >= data.evaluation_tokens:
            break
        ids = _encode(tokenizer, [text])[0]
        held_out.append(ids)
        texts.append(text)
        tokens += len(ids) + 1
    return PreparedText(
        train=pack(_encode(tokenizer, list(corpus.train)), mark),
        evaluation=pack(held_out, mark),
        words=sum(len(text.split()) for text in texts),
        size=sum(len(text.encode()) for text in texts),
        vocabulary=len(tokenizer),
        end_of_text=mark,
        fingerprint=corpus.fingerprint,
    )


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return encoded


def _write(path: Path, text: PreparedText) -> None:
    numbers = json.dumps({k: v for k, v in vars(text).items() if k not in _ENTRIES})
    kind = np.uint16 if text.vocabulary <= 2**16 else np.int64
    np.savez(path, numbers=numbers, train=text.train.astype(kind), evaluation=text.evaluation.astype(kind))


def _read(path: Path) -> PreparedText:
    with np.load(path) as kept:
        numbers = json.loads(str(kept["numbers"]))
        return PreparedText(**numbers, **{name: kept[name].astype(np.int64) for name in _ENTRIES})

"""Text too large for memory: read document by document, kept as tokens in a file that is mapped, not loaded.

13 billion tokens are 26 GB on the disk and next to nothing in memory. The file is written once, even by runs at one
time, and named by everything that decides it; a reading that was killed begins again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import source as sources
from benchmarks.data.cache import make_once
from benchmarks.data.text.packing import pack
from benchmarks.data.text.tokenized import PreparedText
from benchmarks.data.text.tokenizer import end_of_text, load_tokenizer
from benchmarks.specs.language import DataSpec, ProtocolSpec

_AT_ONCE = 1000  # documents per call of the tokenizer
_LAYOUT = 1  # raise when the meaning of the kept folder changes


@dataclass(frozen=True)
class StreamedDataSpec(DataSpec):
    """Text of which only so many tokens are ever read; `train_tokens` and `evaluation_tokens` are those numbers."""

    train_tokens: int = 0


@dataclass
class _Reading:
    """Documents of one split as they come, counted and added to the corpus's fingerprint."""

    digest: Any
    words: int = 0
    size: int = 0

    def watch(self, documents: Iterable[str]) -> Iterator[str]:
        """Pass documents on, one by one."""
        self.digest.update(b"split\0")
        for text in documents:
            self.digest.update(text.encode() + b"\0")
            self.words += len(text.split())
            self.size += len(text.encode())
            yield text


def prepare_streamed(data: StreamedDataSpec, protocol: ProtocolSpec, tier: str, folder: Path) -> PreparedText:
    """The text of an experiment, its training side mapped from the work folder and written there first if need be.

    Raises:
        MissingSourceError: the source is not at hand.
        ValueError: it cannot be streamed, or ends before there are enough tokens.
    """
    origin = sources.find(data.source)
    if origin.stream is None:
        raise ValueError(f"source {data.source!r} cannot be streamed; take a DataSpec, which loads it whole")
    reason = origin.missing(data.configuration, tier)
    if reason is not None:
        raise sources.MissingSourceError(reason)
    wanted = {**asdict(data), "tokenizer": protocol.tokenizer, "split": protocol.split}
    wanted |= {"key": origin.key(data.configuration), "layout": _LAYOUT}
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    place = folder / "text" / f"{data.source}-{name}"
    make_once(place, lambda partial: _write(partial, data, protocol, tier, origin))
    numbers = json.loads((place / "numbers.json").read_text())
    kind = numbers.pop("kind")
    train = np.memmap(place / "train.tokens", dtype=kind, mode="r")
    evaluation = np.fromfile(place / "evaluation.tokens", dtype=kind).astype(np.int64)
    return PreparedText(train=train, evaluation=evaluation, **numbers)


def _write(place: Path, data: StreamedDataSpec, protocol: ProtocolSpec, tier: str, origin: sources.Source) -> None:
    """Write both sides and their numbers into a new folder."""
    assert origin.stream is not None  # looked at by prepare_streamed
    place.mkdir()
    tokenizer = load_tokenizer(protocol.tokenizer, tier)
    kind = "uint16" if len(tokenizer) <= 2**16 else "uint32"
    digest = hashlib.sha256()
    wanted = (("train", "train", data.train_tokens), ("evaluation", protocol.split, data.evaluation_tokens))
    for side, split, most in wanted:
        reading = _Reading(digest)
        documents = reading.watch(origin.stream(data.configuration, split, tier))
        with (place / f"{side}.tokens").open("wb") as file:
            written = _write_tokens(file, documents, tokenizer, most, kind)
        if side == "train" and written < data.train_tokens:
            raise ValueError(
                f"train_tokens is {data.train_tokens}, but source {data.source!r} ends after {written}; ask for fewer, "
                f"or set {sources.MIRROR_VARIABLE}={sources.HUB} if a mirror holds a sample only"
            )
    numbers = {
        **{"words": reading.words, "size": reading.size, "vocabulary": len(tokenizer)},
        **{"end_of_text": end_of_text(tokenizer), "fingerprint": digest.hexdigest(), "kind": kind},
    }
    (place / "numbers.json").write_text(json.dumps(numbers))


def _write_tokens(file: BinaryIO, documents: Iterator[str], tokenizer: Any, most: int | None, kind: str) -> int:
    """Write whole documents, END_OF_TEXT before, between and behind them, until there are `most` tokens; how many."""
    end = end_of_text(tokenizer)
    count = 0
    while most is None or count < most:
        texts = list(itertools.islice(documents, _AT_ONCE if most is None else _few(most - count)))
        if not texts:
            break
        tokens: NDArray[np.int64] = pack(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"], end)
        new = tokens if count == 0 else tokens[1:]  # the mark behind the last document stands already
        file.write(new.astype(kind).tobytes())
        count += len(new)
    return count


def _few(tokens: int) -> int:
    """Documents to read when so many tokens are missing: single ones near the end, so that little is read too much."""
    return max(1, min(_AT_ONCE, tokens // 2000))

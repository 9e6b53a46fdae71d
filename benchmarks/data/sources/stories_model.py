"""stories260K: a really trained, 260,032-parameter LLaMA (Karpathy's llama2.c, MIT), small enough for any CPU."""

from __future__ import annotations

from pathlib import Path

from benchmarks.data.source import Corpus, MissingSourceError, Source, explain_missing, files_key, mirror_folder

_PLACE = ("models", "stories260K")


def folder(tier: str) -> Path:
    """The folder of weights and tokenizer.

    Raises:
        MissingSourceError: the mirror does not hold it.
    """
    place = mirror_folder(*_PLACE)
    if place is None:
        raise MissingSourceError(missing("default", tier) or "")
    return place


def key(configuration: str) -> str:
    """Files of the folder."""
    return files_key(mirror_folder(*_PLACE))


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the weights cannot be loaded, or None; they are on the Hub in another format only."""
    if mirror_folder(*_PLACE) is not None:
        return None
    return explain_missing("stories_model", tier, "/".join(_PLACE), None)


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """No text belongs to the weights: an empty corpus."""
    return Corpus((), ())


SOURCE = Source("stories_model", load, key, missing)

"""OpenDocs: 184 MB of books and technical prose, the stand-in for a web corpus where no network is at hand.

A perplexity on it is lower than on web text and comparable with no published one.
"""

from __future__ import annotations

from benchmarks.data.source import (
    Corpus,
    MissingSourceError,
    Source,
    cap,
    dataset_folder,
    explain_missing,
    files_key,
    read_column,
)


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """The corpus by document, from the mirror.

    Raises:
        MissingSourceError: the mirror does not hold it.
    """
    reason = missing(configuration, tier)
    if reason is not None:
        raise MissingSourceError(reason)
    texts = read_column("opendocs", "opendocs", configuration, ("train", split), tier)
    return Corpus(cap(texts["train"], train_bytes), tuple(texts[split]))


def key(configuration: str) -> str:
    """Configuration and files of the mirror."""
    return f"{configuration};{files_key(dataset_folder('opendocs', configuration))}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the corpus cannot be loaded, or None; it is not on the Hub."""
    if dataset_folder("opendocs", configuration) is not None:
        return None
    return explain_missing("opendocs", tier, f"opendocs/{configuration}", None)


SOURCE = Source("opendocs", load, key, missing)

"""C4 (Raffel et al., arXiv 1910.10683), English: what LLaMA is pre-trained on in GaLore's comparison and in the paper.

The Hub's 305 GB are streamed in a seeded order, never downloaded whole, and so are the files of a mirror. A mirror may
hold a sample, cut into its own train and validation: enough to try the code and to calibrate, not to pre-train.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.data.source import (
    Corpus,
    MissingSourceError,
    Source,
    cap,
    dataset_folder,
    files_key,
    missing_dataset,
)

HUB_ID = "allenai/c4"
_SEED = 42
_BUFFER = 10_000  # documents that a streamed shuffle draws from
_MOST_BYTES = 50_000_000  # about 11 million tokens: what `load` takes from the Hub when nothing smaller is asked for


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """Documents in memory: all of the mirror, or the first ones of the Hub's stream.

    Raises:
        MissingSourceError: it is in neither.
    """
    most = _MOST_BYTES if dataset_folder(HUB_ID, configuration) is None else None
    train = cap(stream(configuration, "train", tier), train_bytes or most)
    return Corpus(train, cap(stream(configuration, split, tier), most))


def stream(configuration: str, split: str, tier: str) -> Iterator[str]:
    """The documents of a split one after the other, in an order that a fixed seed decides.

    Raises:
        MissingSourceError: they are neither in the mirror nor to be had from the Hub.
    """
    reason = missing(configuration, tier)
    if reason is not None:
        raise MissingSourceError(reason)
    from datasets import load_dataset  # slow to import, and most commands never load a corpus

    folder = dataset_folder(HUB_ID, configuration)
    if folder is None:
        rows = load_dataset(HUB_ID, configuration, split=split, streaming=True)
    else:
        files = sorted(str(path) for path in folder.glob(f"{split}-*.parquet"))
        rows = load_dataset("parquet", data_files={split: files}, split=split, streaming=True)
    return (row["text"] for row in rows.shuffle(seed=_SEED, buffer_size=_BUFFER))


def key(configuration: str) -> str:
    """Configuration, files of the mirror, and the order."""
    return f"{configuration};{files_key(dataset_folder(HUB_ID, configuration))};{_SEED};{_BUFFER}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the documents cannot be loaded, or None."""
    return missing_dataset("c4", HUB_ID, configuration, tier)


SOURCE = Source("c4", load, key, missing, stream)

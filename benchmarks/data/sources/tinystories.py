"""TinyStories (Eldan and Li, arXiv 2305.07759): what stories260K was trained on.

The mirror holds a few stories of the validation split, enough to see whether the model still tells them; there is
no training text in it.
"""

from __future__ import annotations

from benchmarks.data.source import Corpus, Source, dataset_folder, files_key, missing_dataset, read_column

HUB_ID = "roneneldan/TinyStories"


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """The stories of the evaluation split; the training side is empty.

    Raises:
        MissingSourceError: they are neither in the mirror nor to be had from the Hub.
    """
    return Corpus((), tuple(read_column("tinystories", HUB_ID, configuration, (split,), tier)[split]))


def key(configuration: str) -> str:
    """Configuration and files of the mirror."""
    return f"{configuration};{files_key(dataset_folder(HUB_ID, configuration))}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the stories cannot be loaded, or None."""
    return missing_dataset("tinystories", HUB_ID, configuration, tier)


SOURCE = Source("tinystories", load, key, missing)

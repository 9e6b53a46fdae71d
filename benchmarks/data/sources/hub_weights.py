"""Weights of others: `models/<Hub id with "__" for "/">` in the mirror, or the Hub; the configuration is the Hub id."""

from __future__ import annotations

from pathlib import Path

from benchmarks.data.source import Corpus, Source, explain_missing, files_key, from_hub, mirror_folder


def folder(hub_id: str) -> Path | None:
    """Return the folder of a model in the mirror, or None."""
    return mirror_folder("models", _name(hub_id))


def key(configuration: str) -> str:
    """The Hub id, and files of the mirror."""
    return f"{configuration};{files_key(folder(configuration))}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the weights cannot be loaded, or None."""
    if from_hub(tier) or folder(configuration) is not None:
        return None
    return explain_missing(f"weights of {configuration}", tier, f"models/{_name(configuration)}", configuration)


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """No text belongs to weights: an empty corpus."""
    return Corpus((), ())


def _name(hub_id: str) -> str:
    return hub_id.replace("/", "__")


SOURCE = Source("hub_weights", load, key, missing)

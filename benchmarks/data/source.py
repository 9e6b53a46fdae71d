"""Sources of text or images: their contract, and the message of one that cannot be loaded.

No network is touched unless the tier is `paper` or ECOSPA_DATA is `hub`. Otherwise a source is read from a local
mirror of Parquet files, `<ECOSPA_DATA>/<hub id, "/" as "__">/<configuration>/<split>-*.parquet`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIRROR_VARIABLE = "ECOSPA_DATA"
HUB = "hub"
_watching: list[set[Path]] = []


class MissingSourceError(ValueError):
    """A source of data is not at hand; the message names it, the tier, and both ways to get it."""


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and documents to evaluate on."""

    train: tuple[str, ...]
    evaluation: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole text, both splits, with document boundaries."""
        digest = hashlib.sha256()
        for split in (self.train, self.evaluation):
            digest.update(b"split\0")
            for document in split:
                digest.update(document.encode())
                digest.update(b"\0")
        return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """A source of text, or of what another kind of task reads.

    Attributes:
        name: the file's name in `benchmarks/data/sources`.
        load: (configuration, evaluation split, tier, most to train on or None) -> Corpus, the most in bytes; a source
            of examples gives what its task reads, and the most is a number of examples.
        key: configuration -> a cheap text that changes whenever the corpus would.
        missing: (configuration, tier) -> why it cannot be loaded, or None.
        stream: (configuration, split, tier) -> documents one by one, where they may not fit into memory; or None.
    """

    name: str
    load: Callable[[str, str, str, int | None], Any]
    key: Callable[[str], str]
    missing: Callable[[str, str], str | None]
    stream: Callable[[str, str, str], Iterator[str]] | None = None

    def bind(self, configuration: str) -> BoundSource:
        """This source with its configuration chosen."""
        return BoundSource(self, configuration)


@dataclass(frozen=True)
class BoundSource:
    """A source with its configuration chosen: what an experiment says that it needs."""

    source: Source
    configuration: str

    def missing(self, tier: str) -> str | None:
        """Return the reason it cannot be loaded, or None."""
        return self.source.missing(self.configuration, tier)


def find(name: str) -> Source:
    """The source of that name, from the file of that name."""
    source: Source = importlib.import_module(f"benchmarks.data.sources.{name}").SOURCE
    return source


def from_hub(tier: str) -> bool:
    """Return True if data come from the Hugging Face Hub rather than from a mirror."""
    place = os.environ.get(MIRROR_VARIABLE, "")
    return place == HUB or (tier == "paper" and not place)


def mirror_folder(*parts: str) -> Path | None:
    """A folder of the local mirror, or None where ECOSPA_DATA names none or the folder is not there."""
    place = os.environ.get(MIRROR_VARIABLE, "")
    if place in ("", HUB):
        return None
    folder = Path(place).expanduser().joinpath(*parts)
    if not folder.is_dir():
        return None
    for asked in _watching:
        asked.add(folder)
    return folder


@contextmanager
def folders_asked_for() -> Iterator[set[Path]]:
    """Folders of the mirror that are asked for inside of the block, and are there: what a pack has to carry."""
    asked: set[Path] = set()
    _watching.append(asked)
    try:
        yield asked
    finally:
        _watching.pop()


def dataset_folder(hub_id: str, configuration: str) -> Path | None:
    """Folder of a Hub data set in the mirror."""
    return mirror_folder(hub_id.replace("/", "__"), configuration)


def explain_missing(name: str, tier: str, inside_mirror: str, hub_id: str | None) -> str:
    """The message for a source that is not there: its name, the tier, and both ways to get it."""
    place = os.environ.get(MIRROR_VARIABLE, "")
    mirror = f"{MIRROR_VARIABLE} is {place!r} and has no {inside_mirror}" if place else f"{MIRROR_VARIABLE} is not set"
    hub = (
        f"set {MIRROR_VARIABLE}={HUB} to load {hub_id} from the Hugging Face Hub (needs a network)"
        if hub_id is not None
        else "it is not on the Hugging Face Hub in this form, so put the files there yourself (benchmarks/README.md)"
    )
    return (
        f"source {name!r}, tier {tier!r}: not found ({mirror}). "
        f"Either point {MIRROR_VARIABLE} at a local mirror that holds {inside_mirror}, or {hub}."
    )


def missing_dataset(name: str, hub_id: str, configuration: str, tier: str) -> str | None:
    """Return the reason a Hub data set can be loaded neither from the mirror nor from the Hub, or None."""
    if from_hub(tier) or dataset_folder(hub_id, configuration) is not None:
        return None
    return explain_missing(name, tier, f"{hub_id.replace('/', '__')}/{configuration}", f"{hub_id} ({configuration})")


def read_column(
    name: str, hub_id: str, configuration: str, splits: Iterable[str], tier: str, column: str = "text"
) -> dict[str, list[str]]:
    """One text column of a data set by split.

    Raises:
        MissingSourceError: it is neither in the mirror nor to be had from the Hub.
    """
    loaded = load_splits(name, hub_id, configuration, splits, tier)
    return {split: list(rows[column]) for split, rows in loaded.items()}


def load_splits(name: str, hub_id: str, configuration: str, splits: Iterable[str], tier: str) -> dict[str, Any]:
    """Splits of a data set, each a `datasets.Dataset`, through `datasets.load_dataset`.

    Raises:
        MissingSourceError: it is neither in the mirror nor to be had from the Hub.
    """
    reason = missing_dataset(name, hub_id, configuration, tier)
    if reason is not None:
        raise MissingSourceError(reason)
    from datasets import load_dataset  # slow to import, and most commands never load a corpus

    folder = dataset_folder(hub_id, configuration)
    wanted = tuple(splits)
    try:
        if folder is not None:
            files = {split: sorted(str(path) for path in folder.glob(f"{split}-*.parquet")) for split in wanted}
            loaded = load_dataset("parquet", data_files=files)
        else:
            loaded = load_dataset(hub_id, configuration)
    except (OSError, ValueError) as error:
        place = folder if folder is not None else f"the Hub id {hub_id}"
        raise MissingSourceError(f"source {name!r}, tier {tier!r}: {place} cannot be read: {error}") from error
    return {split: loaded[split] for split in wanted}


def files_key(folder: Path | None) -> str:
    """Names, sizes and times of the files of a folder: changes whenever one of them does."""
    if folder is None:
        return HUB
    stats = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    return ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)


def cap(documents: Iterable[str], most_bytes: int | None) -> tuple[str, ...]:
    """The first documents whose UTF-8 bytes together first reach `most_bytes`; all of them for None."""
    taken: list[str] = []
    size = 0
    for document in documents:
        if most_bytes is not None and size >= most_bytes:
            break
        taken.append(document)
        size += len(document.encode())
    return tuple(taken)

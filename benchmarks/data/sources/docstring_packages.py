"""Docstrings with the package that each comes from: text to classify that is on every machine, for the smoke tier.

A package's own name in its text makes many of them easy, as the topic of a text often does.
"""

from __future__ import annotations

from itertools import islice

from benchmarks.data.examples import Labelled, LabelledCorpus
from benchmarks.data.source import MissingSourceError, Source
from benchmarks.data.sources import docstrings
from benchmarks.data.sources.docstrings import documents, missing, roots

_LAYOUT = 2  # raise when other texts are taken from the same packages
_DEFAULT = 2800
_HELD_OUT = 10  # documents read per document that is held out: one file in ten is


def load(configuration: str, split: str, tier: str, most: int | None) -> LabelledCorpus:
    """Equally many docstrings of every package, `most` to train on together.

    Packages copy from each other: what has stood in one is no example of another, or a text could be trained on under
    one label and be asked for under the other.

    Raises:
        MissingSourceError: fewer than two packages are installed as source files.
    """
    packages = roots()
    if len(packages) < 2:
        raise MissingSourceError(missing(configuration, tier) or "one package alone leaves nothing to tell apart")
    quota = max(1, (most or _DEFAULT) // len(packages))
    train: list[Labelled] = []
    evaluation: list[Labelled] = []
    seen: set[str] = set()
    for label, (name, root) in enumerate(packages.items()):
        own: dict[str, bool] = {}
        for held_out, _, text in islice(documents(name, root), 2 * quota):
            if text not in seen:
                seen.add(text)
                own[text] = held_out
        sides = [
            [Labelled((text,), float(label)) for text, out in own.items() if out is side] for side in (False, True)
        ]
        train += sides[0][:quota]
        evaluation += sides[1][: -(-quota // _HELD_OUT)]
    return LabelledCorpus(tuple(train), tuple(evaluation), tuple(packages))


def key(configuration: str) -> str:
    """Versions of what is read, and of how."""
    return f"{docstrings.key(configuration)};layout {_LAYOUT}"


SOURCE = Source("docstring_packages", load, key, missing)

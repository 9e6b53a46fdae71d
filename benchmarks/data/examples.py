"""Examples with answers, as their sources give them: labelled texts, and questions about a text.

Sources of plain text give a `benchmarks.data.source.Corpus`; these two are its counterparts for encoders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

T = TypeVar("T")

HELD_OUT = "held-out"
"""A split of data sets that have none of that name: the end of their training split, on which settings are chosen."""
_MOST_HELD_OUT, _HELD_OUT_SHARE = 1000, 10  # of the training split at most a tenth


@dataclass(frozen=True)
class Labelled:
    """One or two texts, and what is to be said about them: the number of a class, or a real number."""

    texts: tuple[str, ...]
    label: float


@dataclass(frozen=True)
class LabelledCorpus:
    """Labelled texts to train on and to evaluate on; `classes` names the labels and is empty for real numbers."""

    train: tuple[Labelled, ...]
    evaluation: tuple[Labelled, ...]
    classes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both splits and of the names of the classes."""
        return fingerprint(self.train, self.evaluation, [(name,) for name in self.classes])


@dataclass(frozen=True)
class Question:
    """A question whose answer stands in its context.

    `answers` are all accepted ones; the first begins at character `start` of the context.
    """

    question: str
    context: str
    answers: tuple[str, ...]
    start: int


@dataclass(frozen=True)
class QuestionCorpus:
    """Questions to train on and to evaluate on."""

    train: tuple[Question, ...]
    evaluation: tuple[Question, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both splits."""
        return fingerprint(self.train, self.evaluation)


def fingerprint(*splits: Iterable[Any]) -> str:
    """SHA-256 of examples, with the borders of examples and splits."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(b"split\0")
        for example in split:
            plain = example if isinstance(example, tuple) else astuple(example)
            digest.update(json.dumps(plain).encode() + b"\0")
    return digest.hexdigest()


def spread(examples: Sequence[T], most: int | None) -> tuple[T, ...]:
    """At most so many examples, evenly spaced: neighbours often come from one document; all of them for None."""
    if most is None or most >= len(examples):
        return tuple(examples)
    return tuple(examples[number * len(examples) // most] for number in range(most))


def sides(
    load: Callable[[tuple[str, ...]], Mapping[str, Any]], split: str, most: int = _MOST_HELD_OUT
) -> tuple[Any, Any]:
    """Rows to train on and rows to evaluate on, as data sets.

    Args:
        load: names of splits -> data sets.
        split: to evaluate on; HELD_OUT takes the end of the training split away from the training.
        most: rows that are held out, of a tenth of the training split at most.
    """
    if split != HELD_OUT:
        loaded = load(("train", split))
        return loaded["train"], loaded[split]
    rows = load(("train",))["train"]
    border = len(rows) - min(most, len(rows) // _HELD_OUT_SHARE)
    return rows.select(range(border)), rows.select(range(border, len(rows)))

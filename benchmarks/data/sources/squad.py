"""SQuAD v1.1 (Rajpurkar et al., arXiv 1606.05250): questions about Wikipedia, each answered by a span of its text."""

from __future__ import annotations

from typing import Any

from benchmarks.data.examples import Question, QuestionCorpus, sides, spread
from benchmarks.data.source import Source, dataset_folder, files_key, load_splits, missing_dataset

HUB_ID = "rajpurkar/squad"


def load(configuration: str, split: str, tier: str, most: int | None) -> QuestionCorpus:
    """The questions, from the mirror or from the Hub; `most` training questions, evenly spaced over all articles.

    Raises:
        MissingSourceError: they are in neither.
    """
    rows, held_out = sides(lambda names: load_splits("squad", HUB_ID, configuration, names, tier), split)
    chosen = rows.select(spread(range(len(rows)), most))
    return QuestionCorpus(_questions(chosen), _questions(held_out))


def key(configuration: str) -> str:
    """Configuration and files of the mirror."""
    return f"{configuration};{files_key(dataset_folder(HUB_ID, configuration))}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the questions cannot be loaded, or None."""
    return missing_dataset("squad", HUB_ID, configuration, tier)


def _questions(rows: Any) -> tuple[Question, ...]:
    whole = rows[:]  # all columns at once: row by row takes minutes
    columns = (whole[name] for name in ("question", "context", "answers"))
    return tuple(
        Question(question, context, tuple(answers["text"]), int(answers["answer_start"][0]))
        for question, context, answers in zip(*columns, strict=True)
    )


SOURCE = Source("squad", load, key, missing)

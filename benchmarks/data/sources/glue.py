"""GLUE (Wang et al., arXiv 1804.07461): sentences and pairs of sentences to be judged, one task per configuration.

The labels of the test splits are not public, so the validation split is what is evaluated, as is usual.
"""

from __future__ import annotations

from typing import Any

from benchmarks.data.examples import Labelled, LabelledCorpus, sides, spread
from benchmarks.data.source import Source, dataset_folder, files_key, load_splits, missing_dataset

HUB_ID = "nyu-mll/glue"
TEXTS = {
    "sst2": ("sentence",),
    "cola": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qnli": ("question", "sentence"),
}
"""Task -> the columns of its texts."""


def load(configuration: str, split: str, tier: str, most: int | None) -> LabelledCorpus:
    """One task, from the mirror or from the Hub; `most` training examples, evenly spaced.

    Raises:
        MissingSourceError: it is in neither.
        ValueError: a task that is not known.
    """
    if configuration not in TEXTS:
        raise ValueError(f"configuration is {configuration!r}; choose one of {', '.join(TEXTS)}")
    rows, held_out = sides(lambda names: load_splits("glue", HUB_ID, configuration, names, tier), split)
    classes = tuple(getattr(rows.features["label"], "names", ()))
    chosen = rows.select(spread(range(len(rows)), most))
    train, evaluation = (_examples(part, TEXTS[configuration]) for part in (chosen, held_out))
    return LabelledCorpus(train, evaluation, classes)


def key(configuration: str) -> str:
    """Configuration and files of the mirror."""
    return f"{configuration};{files_key(dataset_folder(HUB_ID, configuration))}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the task cannot be loaded, or None."""
    return missing_dataset("glue", HUB_ID, configuration, tier)


def _examples(rows: Any, columns: tuple[str, ...]) -> tuple[Labelled, ...]:
    whole = rows[:]
    texts = zip(*(whole[column] for column in columns), strict=True)
    return tuple(Labelled(pair, float(label)) for pair, label in zip(texts, whole["label"], strict=True))


SOURCE = Source("glue", load, key, missing)

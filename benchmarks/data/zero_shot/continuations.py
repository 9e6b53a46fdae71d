"""A multiple-choice task out of any text: which of four passages goes on from this one?

Small models are at chance at the tasks that large ones are compared on. At this one they are not, because the three
wrong passages come from other documents; it needs no data of its own, so it runs on any laptop.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.cache import make_once

NAME = "continuation"
CHOICES = 4
_START, _ENDING = 24, 12  # words


def continuations(documents: Sequence[str], most: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions made of documents: a passage, four that may follow it, and the place of the one that does.

    Args:
        documents: each long enough gives questions, one after the other.
        most: questions at most, spread over all documents.
        seed: decides which passages are wrong and where the right one stands.

    Raises:
        ValueError: the text does not give passages from as many documents as a question has choices.
    """
    random = np.random.default_rng(seed)
    passages = [
        (number, words[at : at + _START], words[at + _START : at + _START + _ENDING])
        for number, words in enumerate(document.split() for document in documents)
        for at in range(0, len(words) - _START - _ENDING + 1, _START + _ENDING)
    ]
    if len({number for number, _, _ in passages}) < CHOICES:
        raise ValueError(f"the text has fewer than {CHOICES} documents of {_START + _ENDING} words; take more text")
    chosen = random.permutation(len(passages))[:most]
    questions = []
    for index in sorted(chosen):
        number, start, ending = passages[index]
        others = [other for n, _, other in passages if n != number]
        endings = [others[int(n)] for n in random.choice(len(others), CHOICES - 1, replace=False)]
        answer = int(random.integers(CHOICES))
        endings.insert(answer, ending)
        joined = [" ".join(words) for words in endings]
        questions.append({"start": " ".join(start), "endings": joined, "answer": answer})
    return questions


def specification(questions: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The task as the harness takes it; its data are written to a folder.

    Args:
        questions: of `continuations`.
        folder: gets one file, named by the questions: runs that ask the same share it.
    """
    from datasets import Dataset

    name = hashlib.sha256(json.dumps(list(questions), sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{NAME}-{name}.parquet"
    make_once(path, lambda partial: Dataset.from_list(list(questions)).to_parquet(partial))
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    return {
        "task": NAME,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": [str(path)]}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{start}}",
        "doc_to_choice": "{{endings}}",
        "doc_to_target": "{{answer}}",
        "metric_list": metrics,
        "metadata": {"version": 1.0},
    }

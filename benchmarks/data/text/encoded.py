"""Labelled texts as an encoder reads them: token numbers of fixed length, which of them are padding, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import source as sources
from benchmarks.data.cache import kept
from benchmarks.data.examples import Labelled, LabelledCorpus, spread
from benchmarks.data.text.wordpiece import encode, pair_tokenizer, tokenizer_key
from benchmarks.specs.encoder import ClassificationSpec, ExamplesSpec, SpanSpec

_LAYOUT = 1  # raise when the meaning of the kept file changes
INPUTS = ("input_ids", "token_type_ids", "attention_mask")

Inputs = dict[str, NDArray[Any]]
"""INPUTS, each (examples, length)."""


@dataclass(frozen=True)
class EncodedTexts:
    """Both sides of a task.

    Attributes:
        train: inputs to train on.
        train_labels: (examples,) numbers of classes, or real numbers.
        evaluation: inputs to evaluate on.
        evaluation_labels: (examples,).
        classes: names of the labels; none for real numbers.
        vocabulary: entries of the tokenizer.
        fingerprint: SHA-256 of the corpus.
    """

    train: Inputs
    train_labels: NDArray[np.float64]
    evaluation: Inputs
    evaluation_labels: NDArray[np.float64]
    classes: list[str]
    vocabulary: int
    fingerprint: str


def encoded_texts(data: ExamplesSpec, protocol: ClassificationSpec, tier: str, folder: Path) -> EncodedTexts:
    """The examples of a run, from the work folder or encoded now and put there.

    Raises:
        MissingSourceError: the source or the tokenizer is not at hand.
    """
    origin = available(data, tier)

    def make() -> dict[str, Any]:
        corpus: LabelledCorpus = origin.load(data.configuration, protocol.split, tier, data.train_examples)
        tokenizer = pair_tokenizer(protocol.tokenizer, (t for one in corpus.train for t in one.texts), tier)
        content: dict[str, Any] = {"classes": list(corpus.classes), "vocabulary": len(tokenizer)}
        content["fingerprint"] = corpus.fingerprint
        held_out = spread(corpus.evaluation, data.evaluation_examples)
        for side, examples in (("train", corpus.train), ("evaluation", held_out)):
            content |= _encode(tokenizer, examples, protocol, side)
        return content

    arrays = kept(folder, f"{data.source}-{data.configuration}", decided_by(data, protocol, origin), make)
    sides: dict[str, Any] = {
        side: {name: arrays.pop(f"{side}_{name}") for name in INPUTS} for side in ("train", "evaluation")
    }
    return EncodedTexts(**sides, **arrays)


def available(data: ExamplesSpec, tier: str) -> sources.Source:
    """The source of examples.

    Raises:
        MissingSourceError: it is not at hand.
    """
    origin = sources.find(data.source)
    reason = origin.missing(data.configuration, tier)
    if reason is not None:
        raise sources.MissingSourceError(reason)
    return origin


def decided_by(data: ExamplesSpec, protocol: ClassificationSpec | SpanSpec, origin: sources.Source) -> dict[str, Any]:
    """All that decides encoded examples."""
    keys = {"key": origin.key(data.configuration), "tokenizer_key": tokenizer_key(protocol.tokenizer)}
    return {**asdict(data), **asdict(protocol), **keys, "task": protocol.task, "layout": _LAYOUT}


def compact(inputs: Any) -> Inputs:
    """INPUTS of a BatchEncoding as small arrays: a vocabulary has fewer than 65,536 entries, the rest is 0 or 1."""
    kinds = {"input_ids": np.uint16, "token_type_ids": np.uint8, "attention_mask": np.uint8}
    return {name: np.asarray(inputs[name], dtype=kind) for name, kind in kinds.items()}


def marked(inputs: Inputs, second: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Token types, 0 also for those tokens of the second text that stand in the first, whose type that is.

    Args:
        inputs: of pairs of texts, (examples, length) each.
        second: (examples, length), where the tokens of the second texts are.
    """
    ids, types = inputs["input_ids"], inputs["token_type_ids"].copy()
    first = (types == 0) & (inputs["attention_mask"] == 1)
    for row in range(len(ids)):
        types[row, second[row] & np.isin(ids[row], ids[row, first[row]])] = 0
    return types


def _encode(tokenizer: Any, examples: Sequence[Labelled], protocol: ClassificationSpec, side: str) -> dict[str, Any]:
    texts = [example.texts for example in examples]
    inputs = compact(encode(tokenizer, texts, max_length=protocol.sequence_length, truncation=True))
    if protocol.marked:
        special = np.isin(inputs["input_ids"], tokenizer.all_special_ids)
        inputs["token_type_ids"] = marked(inputs, (inputs["token_type_ids"] == 1) & ~special)
    labels = np.array([example.label for example in examples], dtype=np.float64)
    return {**{f"{side}_{name}": value for name, value in inputs.items()}, f"{side}_labels": labels}

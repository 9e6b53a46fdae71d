"""Questions as an encoder reads them: `[CLS] question [SEP] context [SEP]`, long contexts in windows.

Neighbouring windows of a context share `stride` tokens, so that an answer near a border stands whole in one of them.
A training window without the whole answer points at [CLS], as in BERT's own code, or is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.cache import kept
from benchmarks.data.examples import Question, QuestionCorpus, spread
from benchmarks.data.text.encoded import INPUTS, Inputs, available, compact, decided_by, marked
from benchmarks.data.text.wordpiece import encode, pair_tokenizer
from benchmarks.specs.encoder import ExamplesSpec, SpanSpec

OUTSIDE = -1
"""Offset of a token that does not belong to the context."""
_AT_ONCE = 1000  # questions; lists of Python numbers take thirty times the memory of arrays


@dataclass(frozen=True)
class EncodedQuestions:
    """Both sides of a task.

    Attributes:
        train: inputs to train on, one row per window.
        train_labels: int (windows, 2), first and last token of the answer; 0 and 0 where the window lacks it.
        evaluation: inputs to evaluate on, one row per window.
        evaluation_question: int (windows,), the question of a window.
        evaluation_offsets: int (windows, length, 2), characters of a token in its context, or OUTSIDE.
        contexts: one per question to evaluate on.
        answers: accepted ones, per question to evaluate on.
        answer_words: median number of words of a training answer.
        vocabulary: entries of the tokenizer.
        fingerprint: SHA-256 of the corpus.
    """

    train: Inputs
    train_labels: NDArray[np.int64]
    evaluation: Inputs
    evaluation_question: NDArray[np.int64]
    evaluation_offsets: NDArray[np.int64]
    contexts: list[str]
    answers: list[list[str]]
    answer_words: int
    vocabulary: int
    fingerprint: str


def encoded_questions(data: ExamplesSpec, protocol: SpanSpec, tier: str, folder: Path) -> EncodedQuestions:
    """The questions of a run, from the work folder or encoded now and put there.

    Raises:
        MissingSourceError: the source or the tokenizer is not at hand.
    """
    origin = available(data, tier)

    def make() -> dict[str, Any]:
        corpus: QuestionCorpus = origin.load(data.configuration, protocol.split, tier, data.train_examples)
        texts = (text for one in corpus.train for text in (one.question, one.context))
        tokenizer = pair_tokenizer(protocol.tokenizer, texts, tier)
        held_out = spread(corpus.evaluation, data.evaluation_examples)
        train, owners, offsets = windows(tokenizer, corpus.train, protocol)
        labels = spans(corpus.train, owners, offsets)
        used = labels[:, 1] > 0 if protocol.only_answered else np.ones(len(labels), dtype=bool)
        evaluation, questions, places = windows(tokenizer, held_out, protocol)
        return {
            **{f"train_{name}": value[used] for name, value in train.items()},
            "train_labels": labels[used],
            **{f"evaluation_{name}": value for name, value in evaluation.items()},
            "evaluation_question": questions,
            "evaluation_offsets": places,
            "contexts": [question.context for question in held_out],
            "answers": [list(question.answers) for question in held_out],
            "answer_words": int(np.median([len(question.answers[0].split()) for question in corpus.train])),
            "vocabulary": len(tokenizer),
            "fingerprint": corpus.fingerprint,
        }

    arrays = kept(folder, f"{data.source}-{data.configuration}", decided_by(data, protocol, origin), make)
    sides: dict[str, Any] = {
        side: {name: arrays.pop(f"{side}_{name}") for name in INPUTS} for side in ("train", "evaluation")
    }
    return EncodedQuestions(**sides, **arrays)


def windows(
    tokenizer: Any, questions: Sequence[Question], protocol: SpanSpec
) -> tuple[Inputs, NDArray[np.int32], NDArray[np.int32]]:
    """All windows of all questions, in their order.

    Args:
        tokenizer: of `pair_tokenizer`.
        questions: whose contexts are cut into windows; a longer question than `question_tokens` loses its end.
        protocol: lengths.

    Returns:
        Inputs; int (windows,), the question of each; int (windows, length, 2), where a token begins and ends in the
        context, OUTSIDE for all other tokens.
    """
    parts = [_windows(tokenizer, questions[at : at + _AT_ONCE], protocol) for at in range(0, len(questions), _AT_ONCE)]
    inputs = {name: np.concatenate([part[0][name] for part in parts]) for name in INPUTS}
    owners = np.concatenate([part[1] + number * _AT_ONCE for number, part in enumerate(parts)])
    return inputs, owners, np.concatenate([part[2] for part in parts])


def _windows(
    tokenizer: Any, questions: Sequence[Question], protocol: SpanSpec
) -> tuple[Inputs, NDArray[np.int32], NDArray[np.int32]]:
    shortened = _shortened(tokenizer, [question.question for question in questions], protocol.question_tokens)
    encoding = encode(
        tokenizer,
        [(text, question.context) for text, question in zip(shortened, questions, strict=True)],
        max_length=protocol.sequence_length,
        truncation="only_second",
        stride=protocol.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    inputs, offsets = compact(encoding), np.asarray(encoding["offset_mapping"], dtype=np.int32)
    # the last [SEP] is of the context's type, but of no characters
    context = (inputs["token_type_ids"] == 1) & (offsets[:, :, 1] > offsets[:, :, 0])
    offsets[~context] = OUTSIDE
    if protocol.marked:
        inputs["token_type_ids"] = marked(inputs, context)
    return inputs, np.asarray(encoding["overflow_to_sample_mapping"], dtype=np.int32), offsets


def spans(questions: Sequence[Question], owners: NDArray[np.int32], offsets: NDArray[np.int32]) -> NDArray[np.int32]:
    """First and last token of every window's answer, int (windows, 2); 0 and 0 where the window lacks part of it."""
    begins = np.array([question.start for question in questions])[owners][:, None]
    ends = begins + np.array([len(question.answers[0]) for question in questions])[owners][:, None]
    first, last = offsets[:, :, 0], offsets[:, :, 1]
    inside = (first != OUTSIDE) & (first < ends) & (last > begins)  # tokens that share a character with the answer
    whole = (np.where(inside, first, np.iinfo(np.int32).max).min(1) <= begins[:, 0]) & (
        np.where(inside, last, OUTSIDE).max(1) >= ends[:, 0]
    )
    length = offsets.shape[1]
    positions = np.stack([inside.argmax(1), length - 1 - inside[:, ::-1].argmax(1)], axis=1)
    return np.where(whole[:, None], positions, 0).astype(np.int32)


def _shortened(tokenizer: Any, questions: list[str], most: int) -> list[str]:
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        text if len(offsets) <= most else text[: offsets[most - 1][1]]
        for text, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]

"""Answer a question by a span of a text: SQuAD v1.1's task and its official metrics.

A long context is read in overlapping windows; of all spans of all windows the one with the highest sum of logits is the
answer. It is compared with an answer that reads nothing: the first words of the context, as many as usual.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks.data.text.qa_windows import OUTSIDE, EncodedQuestions, encoded_questions
from benchmarks.experiment import Run
from benchmarks.metrics.squad import answer_metrics
from benchmarks.models.encoder import build_encoder, span_loss
from benchmarks.specs.training import TrainingSettings
from benchmarks.task import Task
from benchmarks.tasks._encoder import EncodedExamples, check_vocabulary, fingerprint, predict
from results.record import Metric

_AT_ONCE = 64  # windows; all their spans are held together


def load(run: Run, folder: Path) -> Task:
    """The questions of a run, and an encoder for them.

    Raises:
        MissingSourceError: the source, the tokenizer or the weights are not at hand.
    """
    settings: TrainingSettings = run.cell.settings
    data, protocol, training = settings.data, settings.protocol, settings.training
    encoded = encoded_questions(data, protocol, run.cell.tier, folder)
    check_vocabulary(settings.model, encoded.vocabulary, protocol.tokenizer)
    first_words = [" ".join(context.split()[: encoded.answer_words]) for context in encoded.contexts]

    def evaluate(model: nn.Module) -> dict[str, Metric]:
        logits = predict(model, encoded.evaluation, 2 * training.micro_batch_size, training.device)
        answers = read_answers(logits, encoded, protocol.answer_tokens)
        return {
            **answer_metrics(answers, encoded.answers),
            **answer_metrics(first_words, encoded.answers, prefix="first_words_"),
        }

    weights = getattr(settings, "folder", None)
    return Task(
        build=lambda: build_encoder(settings.model, None, run.seed, training.device, weights),
        examples=EncodedExamples(encoded.train, encoded.train_labels.astype(np.int64)),
        tokens=protocol.sequence_length,
        evaluate=evaluate,
        fingerprint=fingerprint(encoded.fingerprint, settings.model.weights),
        source=f"{data.source} {data.configuration}, training side",
        loss=lambda outputs, labels, num_items_in_batch: span_loss(outputs.logits, labels, num_items_in_batch),
    )


def read_answers(logits: NDArray[np.float32], encoded: EncodedQuestions, answer_tokens: int) -> list[str]:
    """The best span of every question, as text.

    Args:
        logits: (windows, length, 2).
        encoded: its evaluation side is that of the logits.
        answer_tokens: tokens that an answer has at most.
    """
    scores, firsts, lasts = (np.concatenate(part) for part in zip(*_spans(logits, encoded, answer_tokens), strict=True))
    best: dict[int, int] = {}
    for window, question in enumerate(encoded.evaluation_question.tolist()):
        if question not in best or scores[window] > scores[best[question]]:
            best[question] = window
    answers = []
    for question, context in enumerate(encoded.contexts):
        window = best[question]
        offsets = encoded.evaluation_offsets[window]
        answers.append(context[offsets[firsts[window], 0] : offsets[lasts[window], 1]])
    return answers


def best_spans(
    logits: NDArray[np.float32], allowed: NDArray[np.bool_], answer_tokens: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The span with the highest sum of its two logits in every window; the earliest of equal ones.

    Args:
        logits: (windows, length, 2).
        allowed: (windows, length), tokens that may begin or end an answer.
        answer_tokens: tokens that an answer has at most.

    Returns:
        (windows,) each: the sum, the first and the last token. A window without an allowed token has -inf and 0, 0.
    """
    marked = np.where(allowed[..., None], logits, -np.inf)
    length = logits.shape[1]
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    band = np.where((distance >= 0) & (distance < answer_tokens), 0.0, -np.inf).astype(np.float32)
    sums = (marked[:, :, None, 0] + marked[:, None, :, 1] + band).reshape(len(logits), -1)
    best = sums.argmax(1)
    return sums[np.arange(len(sums)), best], best // length, best % length


def _spans(
    logits: NDArray[np.float32], encoded: EncodedQuestions, answer_tokens: int
) -> list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
    allowed = encoded.evaluation_offsets[:, :, 0] != OUTSIDE
    starts = range(0, len(logits), _AT_ONCE)
    parts = ((logits[start : start + _AT_ONCE], allowed[start : start + _AT_ONCE]) for start in starts)
    return [best_spans(*part, answer_tokens) for part in parts]

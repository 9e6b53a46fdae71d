"""Say which class a text or a pair of texts belongs to, or a real number about it: GLUE's tasks, judged as GLUE does.

The score is compared with that of the commonest training label, or of the mean number, said of everything: what a model
gets that has learnt nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.data.text.encoded import encoded_texts
from benchmarks.experiment import Run
from benchmarks.metrics.glue import accuracy, f1, matthews, pearson, spearman
from benchmarks.models.encoder import build_encoder, label_loss
from benchmarks.specs.encoder import ClassificationSpec
from benchmarks.specs.training import TrainingSettings
from benchmarks.task import Task
from benchmarks.tasks._encoder import EncodedExamples, check_vocabulary, fingerprint, predict
from results.record import Metric

_PERCENT = "%"


def load(run: Run, folder: Path) -> Task:
    """The examples of a run, and an encoder for them.

    Raises:
        MissingSourceError: the source, the tokenizer or the weights are not at hand.
    """
    settings: TrainingSettings = run.cell.settings
    data, protocol, training = settings.data, settings.protocol, settings.training
    encoded = encoded_texts(data, protocol, run.cell.tier, folder)
    check_vocabulary(settings.model, encoded.vocabulary, protocol.tokenizer)
    kind = np.int64 if encoded.classes else np.float32
    true = encoded.evaluation_labels.astype(kind)
    constant = _constant(encoded.train_labels.astype(kind), len(true))

    def evaluate(model: nn.Module) -> dict[str, Metric]:
        logits = predict(model, encoded.evaluation, 2 * training.micro_batch_size, training.device)
        metrics = scores(logits.argmax(1) if encoded.classes else logits[:, 0], true, protocol)
        loss = label_loss(torch.from_numpy(logits), torch.from_numpy(true))
        return {
            **metrics,
            "majority_score": scores(constant, true, protocol)["score"],
            "eval_loss": Metric(float(loss), "nats" if encoded.classes else "squared error", False, n=len(true)),
        }

    weights = getattr(settings, "folder", None)
    return Task(
        build=lambda: build_encoder(settings.model, len(encoded.classes) or 1, run.seed, training.device, weights),
        examples=EncodedExamples(encoded.train, encoded.train_labels.astype(kind)),
        tokens=protocol.sequence_length,
        evaluate=evaluate,
        fingerprint=fingerprint(encoded.fingerprint, settings.model.weights),
        source=f"{data.source} {data.configuration}, training side",
        loss=lambda outputs, labels, num_items_in_batch: label_loss(outputs.logits, labels, num_items_in_batch),
    )


def scores(predicted: NDArray[Any], true: NDArray[Any], protocol: ClassificationSpec) -> dict[str, Metric]:
    """Every metric that the labels allow, in percent, and `score`, the mean of those that the protocol names.

    Args:
        predicted: (examples,) numbers of classes, or real numbers.
        true: (examples,).
        protocol: its `score`.

    Raises:
        ValueError: the protocol names a metric that these labels do not allow.
    """
    if np.issubdtype(true.dtype, np.floating):
        values = {"pearson": pearson(predicted, true), "spearman": spearman(predicted, true)}
    else:
        values = {"accuracy": accuracy(predicted, true), "matthews": matthews(predicted, true)}
        if set(np.unique(true)) <= {0, 1}:
            values["f1"] = f1(predicted, true)
    named = protocol.score.split("+")
    if unknown := [name for name in named if name not in values]:
        raise ValueError(f"score is {protocol.score!r}; {unknown[0]!r} is none of {', '.join(values)}")
    values["score"] = sum(values[name] for name in named) / len(named)
    return {name: Metric(100 * value, _PERCENT, True, n=len(true)) for name, value in values.items()}


def _constant(labels: NDArray[Any], count: int) -> NDArray[Any]:
    """The commonest label, or the mean of real numbers, as the answer to everything."""
    if np.issubdtype(labels.dtype, np.floating):
        return np.full(count, labels.mean(), dtype=labels.dtype)
    return np.full(count, np.bincount(labels).argmax(), dtype=labels.dtype)

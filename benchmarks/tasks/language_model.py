"""Predict the next token: packed sequences to train on, windows that score every held-out token once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.data.text.packing import evaluation_windows, training_sequences
from benchmarks.data.text.streamed import StreamedDataSpec, prepare_streamed
from benchmarks.data.text.tokenized import prepare
from benchmarks.experiment import Run
from benchmarks.metrics.perplexity import perplexity_metrics, predict
from benchmarks.models.language import build_model
from benchmarks.specs.training import TrainingSettings
from benchmarks.task import Task
from results.record import Metric


class PackedText(Dataset[dict[str, Tensor]]):
    """Full sequences of tokens, maybe mapped from a file; the labels are the inputs, which the model shifts itself."""

    def __init__(self, sequences: NDArray[np.integer[Any]]) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = torch.from_numpy(self.sequences[index].astype(np.int64))
        return {"input_ids": tokens, "labels": tokens}


def load(run: Run, folder: Path) -> Task:
    """The text of a run, and a language model for it.

    Raises:
        MissingSourceError: the text is not at hand.
    """
    settings: TrainingSettings = run.cell.settings
    protocol, training = settings.protocol, settings.training
    streamed = isinstance(settings.data, StreamedDataSpec)
    text = (prepare_streamed if streamed else prepare)(settings.data, protocol, run.cell.tier, folder)
    windows = evaluation_windows(text.evaluation, protocol.sequence_length, protocol.stride)

    def evaluate(model: nn.Module) -> dict[str, Metric]:
        prediction = predict(model, *windows, batch_size=2 * training.micro_batch_size, device=training.device)
        return perplexity_metrics(prediction, text.words, text.size)

    return Task(
        build=lambda: build_model(settings.model, run.seed, text.end_of_text, training.device),
        examples=PackedText(training_sequences(text.train, protocol.sequence_length)),
        tokens=protocol.sequence_length,
        evaluate=evaluate,
        fingerprint=text.fingerprint,
        source=f"{settings.data.source} {settings.data.configuration}, training side",
    )

"""Fine-tune a trained model on text while it shrinks, or after it was cut; judged by perplexity on held-out text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn
from transformers import set_seed

from baselines.method import TrainingMethod
from benchmarks.data.text.packing import evaluation_windows, training_sequences
from benchmarks.data.text.tokenized import prepare
from benchmarks.experiment import Run, RunContext
from benchmarks.metrics.perplexity import HeldOut, perplexity_metrics, predict
from benchmarks.pretrained import loading
from benchmarks.pretrained.stories import held_out_text
from benchmarks.specs.training import TrainingSettings
from benchmarks.task import Task
from benchmarks.tasks.language_model import PackedText
from benchmarks.training.prune_then_train import PruneThenTrain
from results.record import Metric


def load(run: Run, folder: Path) -> Task:
    """The trained model of a run, its text, and one-shot methods cut before the first step.

    Raises:
        MissingSourceError: text or weights are not at hand.
    """
    settings: TrainingSettings = run.cell.settings
    training = settings.training
    foundation = foundation_of(run, folder)
    examples, text, source = _text(settings, foundation, run.cell.tier, folder)

    def build() -> nn.Module:
        set_seed(run.seed)
        return foundation.build().to(torch.device(training.device))

    def evaluate(model: nn.Module) -> dict[str, Metric]:
        size = 2 * training.micro_batch_size
        return perplexity_metrics(
            predict(model, text.inputs, text.labels, size, training.device), text.words, text.size
        )

    return Task(
        build=build,
        examples=examples,
        tokens=settings.protocol.sequence_length,
        evaluate=evaluate,
        fingerprint=hashlib.sha256(f"{text.fingerprint} {foundation.fingerprint}".encode()).hexdigest(),
        source=source,
        drive=_prune_then_train,
    )


def foundation_of(run: Run, folder: Path) -> loading.Foundation:
    """The trained model of a run; one of our own is trained now if it has not been.

    Raises:
        MissingSourceError: text or weights are not at hand.
    """
    place = RunContext(folder, threads=torch.get_num_threads())
    return loading.find(run.cell.settings.model, run.cell.tier, place)


def _prune_then_train(method: TrainingMethod) -> TrainingMethod:
    return PruneThenTrain(method) if method.stage == "one-shot" else method


def _text(
    settings: TrainingSettings, foundation: loading.Foundation, tier: str, folder: Path
) -> tuple[PackedText, HeldOut, str]:
    """Examples to train on, text to judge by, and where the examples come from."""
    protocol = settings.protocol
    if protocol.training_text == "self-told":
        stories = loading.told_stories(foundation, protocol.sequence_length, folder)
        held_out = held_out_text(settings.data, protocol, foundation.tokenizer, tier)
        return PackedText(stories), held_out, "stories that the whole model has told itself, at temperature 1"
    text = prepare(settings.data, protocol, tier, folder, foundation.place)
    inputs, labels = evaluation_windows(text.evaluation, protocol.sequence_length, protocol.stride)
    return (
        PackedText(training_sequences(text.train, protocol.sequence_length)),
        HeldOut(inputs, labels, text.words, text.size, text.fingerprint),
        f"{settings.data.source} {settings.data.configuration}, training side",
    )

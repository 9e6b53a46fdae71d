"""The trained models that methods compress, each with the text that it is calibrated and evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import ecospa
from benchmarks.data.fingerprints import weights_digest
from benchmarks.data.text.packing import evaluation_windows, training_sequences
from benchmarks.data.text.tokenized import prepare
from benchmarks.experiment import RunContext
from benchmarks.metrics.perplexity import HeldOut
from benchmarks.pretrained import loading
from benchmarks.pretrained.stories import held_out_text
from benchmarks.specs.compression import CompareSettings
from benchmarks.specs.pretrained import SMOLLM2, STORIES, Pretraining


@dataclass(frozen=True)
class Subject:
    """One trained model and its text.

    Attributes:
        build: a fresh copy of the model.
        text: to evaluate on.
        sequences: (sequences, length), to calibrate on.
        source: where those come from.
        fingerprint: of text and weights.
    """

    build: Callable[[], nn.Module]
    text: HeldOut
    sequences: NDArray[np.integer[Any]]
    source: str
    fingerprint: str


def subject(settings: CompareSettings, tier: str, context: RunContext) -> Subject:
    """The model of a cell, trained or converted now if it has to be.

    Raises:
        MissingSourceError: text or weights are not at hand.
    """
    if settings.architecture is not None:
        return _own(settings, tier, context)
    return (_smollm2 if settings.model == SMOLLM2.name else _stories)(settings, tier, context)


def _own(settings: CompareSettings, tier: str, context: RunContext) -> Subject:
    assert settings.architecture is not None and settings.training is not None  # one of our own
    pretraining = Pretraining(settings.architecture, settings.training, settings.data, settings.protocol)
    folder = loading.trained(pretraining, tier, context)
    text = prepare(settings.data, settings.protocol, tier, context.folder)
    inputs, labels = evaluation_windows(text.evaluation, settings.protocol.sequence_length, settings.protocol.stride)
    return Subject(
        build=lambda: ecospa.from_pretrained(folder),
        text=HeldOut(inputs, labels, text.words, text.size, text.fingerprint),
        sequences=training_sequences(text.train, settings.protocol.sequence_length),
        source=f"{settings.data.source} {settings.data.configuration}, training side",
        fingerprint=weights_digest(folder, before=text.fingerprint),
    )


def _stories(settings: CompareSettings, tier: str, context: RunContext) -> Subject:
    told_by = loading.find(STORIES, tier, context)
    text = held_out_text(settings.data, settings.protocol, told_by.tokenizer, tier)
    return Subject(
        build=told_by.build,
        text=text,
        sequences=loading.told_stories(told_by, settings.protocol.sequence_length, context.folder),
        source="stories that the whole model has told itself, at temperature 1",
        fingerprint=weights_digest(Path(told_by.place), before=text.fingerprint),
    )


def _smollm2(settings: CompareSettings, tier: str, context: RunContext) -> Subject:
    foundation = loading.find(SMOLLM2, tier, context)
    text = prepare(settings.data, settings.protocol, tier, context.folder, foundation.place)
    inputs, labels = evaluation_windows(text.evaluation, settings.protocol.sequence_length, settings.protocol.stride)
    return Subject(
        build=foundation.build,
        text=HeldOut(inputs, labels, text.words, text.size, text.fingerprint),
        sequences=training_sequences(text.train, settings.protocol.sequence_length),
        source=f"{settings.data.source} {settings.data.configuration}, training side",
        fingerprint=hashlib.sha256(f"{text.fingerprint} {foundation.fingerprint}".encode()).hexdigest(),
    )

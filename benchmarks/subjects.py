"""The trained models that methods compress, each with the text that it is calibrated and evaluated on.

A model of our own is trained once and kept in the work folder, named by everything that decides it; its weights are
part of the data fingerprint, so numbers of two trainings never share a table.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

import ecospa
from benchmarks.data import source as sources
from benchmarks.data.packing import evaluation_windows, training_sequences
from benchmarks.data.prepared import prepare
from benchmarks.data.stories_model import folder as stories_folder
from benchmarks.experiment import (
    Cell,
    DataSpec,
    MethodRef,
    ModelSpec,
    ProtocolSpec,
    Run,
    ShrinkSpec,
    TrainingSettings,
    TrainingSpec,
    Workplace,
)
from benchmarks.experiments.compare import CompareSettings
from benchmarks.metrics.perplexity import HeldOut
from benchmarks.pretrained import held_out_text, sample_stories
from benchmarks.runner import train

_TRAINING_SEED = 0
_STORIES = 512
"""Stories told in advance: every calibration seed draws from the same ones."""


@dataclass(frozen=True)
class Subject:
    """One trained model and its text.

    Attributes:
        build: a fresh copy of the model.
        text: to evaluate on.
        sequences: int64 (sequences, length), to calibrate on.
        source: where those come from.
        fingerprint: of text and weights.
    """

    build: Callable[[], nn.Module]
    text: HeldOut
    sequences: NDArray[np.int64]
    source: str
    fingerprint: str


def subject(settings: CompareSettings, tier: str, workplace: Workplace) -> Subject:
    """The model of a cell, trained now if it has to be.

    Raises:
        MissingSourceError: text or weights are not at hand.
    """
    return _stories(settings, tier, workplace) if settings.architecture is None else _own(settings, tier, workplace)


def _own(settings: CompareSettings, tier: str, workplace: Workplace) -> Subject:
    folder = _trained(settings, tier, workplace)
    text = prepare(settings.data, settings.protocol, tier, workplace.folder)
    inputs, labels = evaluation_windows(text.evaluation, settings.protocol.sequence_length, settings.protocol.stride)
    return Subject(
        build=lambda: ecospa.from_pretrained(folder),
        text=HeldOut(inputs, labels, text.words, text.size, text.fingerprint),
        sequences=training_sequences(text.train, settings.protocol.sequence_length),
        source=f"{settings.data.source} {settings.data.configuration}, training side",
        fingerprint=_fingerprint(text.fingerprint, folder),
    )


def _trained(settings: CompareSettings, tier: str, workplace: Workplace) -> Path:
    assert settings.architecture is not None and settings.training is not None  # one of our own
    dense = dense_settings(settings.architecture, settings.data, settings.protocol, settings.training)
    return trained_folder(dense, tier, workplace, _TRAINING_SEED)


def dense_settings(
    architecture: ModelSpec, data: DataSpec, protocol: ProtocolSpec, training: TrainingSpec
) -> TrainingSettings:
    """Settings that train a dense model and nothing else."""
    steps = training.steps
    return TrainingSettings(
        MethodRef("dense"), None, ShrinkSpec(None, steps, 0, steps, steps), architecture, data, protocol, training
    )


def trained_folder(dense: TrainingSettings, tier: str, workplace: Workplace, seed: int) -> Path:
    """Folder of a dense model of our own, trained now if it has to be and kept in the work folder.

    A training that was interrupted goes on from its last checkpoint.

    Args:
        dense: settings of `dense_settings`.
        tier: of the run that needs it.
        workplace: its folder keeps the model.
        seed: of first weights and order of the text.

    Raises:
        MissingSourceError: the text is not at hand.
    """
    run = Run(Cell("compare", tier, "dense", dense), seed)  # type: ignore[arg-type]
    origin = sources.find(dense.data.source).key(dense.data.configuration)
    name = hashlib.sha256(f"{run.folder_name} {origin}".encode()).hexdigest()[:16]
    folder = workplace.folder / "trained" / name
    if not folder.exists():
        trained = train(run, workplace)
        partial = folder.with_name(f"{name}-{os.getpid()}.partial")
        ecospa.save_pretrained(trained.started.model, partial)
        partial.replace(folder)
        shutil.rmtree(workplace.folder / run.folder_name, ignore_errors=True)
    return folder


def _stories(settings: CompareSettings, tier: str, workplace: Workplace) -> Subject:
    place = stories_folder(tier)
    tokenizer = AutoTokenizer.from_pretrained(place)
    text = held_out_text(settings.data, settings.protocol, tokenizer, tier)

    def build() -> nn.Module:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
        return model

    path = workplace.folder / "text" / f"told-{_fingerprint('', place)[:16]}-{settings.protocol.sequence_length}.npy"
    if not path.exists():
        set_seed(_TRAINING_SEED)
        told = sample_stories(build(), _STORIES, settings.protocol.sequence_length, int(tokenizer.bos_token_id))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}-{os.getpid()}.tmp.npy")
        np.save(partial, told.numpy())
        partial.replace(path)
    return Subject(
        build=build,
        text=text,
        sequences=np.load(path),
        source="stories that the whole model has told itself, at temperature 1",
        fingerprint=_fingerprint(text.fingerprint, place),
    )


def _fingerprint(text: str, folder: Path) -> str:
    """SHA-256 of the text's fingerprint and of the weights' files."""
    digest = hashlib.sha256(text.encode())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

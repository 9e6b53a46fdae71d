"""Loads the trained models that experiments start from, and trains those of our own once.

A model of our own is kept in the work folder with its tokenizer, named by everything that decides it. Its weights are
part of the data fingerprint, so numbers of two trainings never share a table.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

import ecospa
from benchmarks.data import source as sources
from benchmarks.data.cache import make_once
from benchmarks.data.fingerprints import weights_digest
from benchmarks.data.sources import hub_weights, smollm2
from benchmarks.data.sources.stories_model import folder as stories_folder
from benchmarks.data.text.tokenized import tokenizer_of
from benchmarks.experiment import Cell, MethodRef, Run, RunContext
from benchmarks.pretrained.stories import sample_stories
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.pretrained import SMOLLM2, STORIES, FoundationSpec, Pretraining
from benchmarks.specs.training import ShrinkSpec, TrainingSettings, TrainingSpec
from benchmarks.training.loop import train

TRAINING_SEED = 0
TOLD = 512
"""Stories that a model tells itself in advance: every seed draws from the same ones."""


@dataclass(frozen=True)
class Foundation:
    """A trained model and its tokenizer.

    Attributes:
        place: folder, or id on the Hub.
        fingerprint: SHA-256 of the weights; of the Hub's id and commit for a model that stands there.
    """

    place: Path | str
    fingerprint: str

    def build(self) -> nn.Module:
        """A fresh copy of the model, in single precision."""
        model: nn.Module = AutoModelForCausalLM.from_pretrained(self.place, dtype=torch.float32)
        return model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return AutoTokenizer.from_pretrained(self.place)


def find(spec: FoundationSpec, tier: str, context: RunContext) -> Foundation:
    """The model of that name, trained or converted now if it has not been.

    Raises:
        MissingSourceError: its weights, or the text to train it on, are not at hand.
    """
    if spec.pretraining is not None:
        place = trained(spec.pretraining, tier, context)
    elif spec == STORIES:
        place = stories_folder(tier)
    elif spec == SMOLLM2:
        return Foundation(smollm2.folder(tier, context.folder), smollm2.TENSORS_SHA256)
    else:
        return _of_others(spec.name, tier)
    return Foundation(place, weights_digest(place))


def _of_others(name: str, tier: str) -> Foundation:
    """Weights from the mirror or from the Hub."""
    reason = hub_weights.missing(name, tier)
    if reason is not None:
        raise sources.MissingSourceError(reason)
    folder = hub_weights.folder(name)
    if folder is not None:
        return Foundation(folder, weights_digest(folder))
    commit = AutoConfig.from_pretrained(name)._commit_hash
    return Foundation(name, hashlib.sha256(f"{name}@{commit}".encode()).hexdigest())


def trained(pretraining: Pretraining, tier: str, context: RunContext) -> Path:
    """Folder of a model of our own, the same one for every seed of a run."""
    return trained_folder(
        dense_settings(pretraining.architecture, pretraining.data, pretraining.protocol, pretraining.training),
        tier, context, TRAINING_SEED,
    )  # fmt: skip


def dense_settings(
    architecture: ModelSpec, data: DataSpec, protocol: ProtocolSpec, training: TrainingSpec
) -> TrainingSettings:
    """Settings that train a dense model and nothing else."""
    steps = training.steps
    return TrainingSettings(
        MethodRef("dense"), None, ShrinkSpec(None, steps, 0, steps, steps), architecture, data, protocol, training
    )


def trained_folder(dense: TrainingSettings, tier: str, context: RunContext, seed: int) -> Path:
    """Folder of a dense model of our own and its tokenizer, trained now if it has to be and kept in the work folder.

    A training that was interrupted goes on from its last checkpoint.

    Args:
        dense: settings of `dense_settings`.
        tier: of the run that needs it.
        context: its folder keeps the model.
        seed: of first weights and order of the text.

    Raises:
        MissingSourceError: the text is not at hand.
    """
    run = Run(Cell("compare", tier, "dense", dense), seed)  # type: ignore[arg-type]
    origin = sources.find(dense.data.source).key(dense.data.configuration)
    name = hashlib.sha256(f"{run.folder_name} {origin}".encode()).hexdigest()[:16]
    folder = context.folder / "trained" / name

    def make(partial: Path) -> None:
        ecospa.save_pretrained(train(run, context).started.model, partial)
        tokenizer_of(dense.data, dense.protocol, tier).save_pretrained(partial)

    make_once(folder, make)
    shutil.rmtree(context.folder / run.folder_name, ignore_errors=True)
    return folder


def told_stories(foundation: Foundation, length: int, folder: Path) -> NDArray[np.int64]:
    """Stories that a model has told itself at temperature 1, told once and kept in the work folder.

    Returns:
        int64 (TOLD, length), each from BOS.
    """
    path = folder / "text" / f"told-{foundation.fingerprint[:16]}-{length}.npy"

    def tell(partial: Path) -> None:
        set_seed(TRAINING_SEED)
        stories = sample_stories(foundation.build(), TOLD, length, int(foundation.tokenizer.bos_token_id))
        np.save(partial, stories.numpy())

    make_once(path, tell)
    return np.load(path)

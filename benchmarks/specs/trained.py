"""Specifications of models that have a name and maybe a past: trained before, by this suite, on the same text.

A plan reads these, so nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from benchmarks.specs.language import ModelSpec, ProtocolSpec
from benchmarks.specs.training import TrainingSpec

SEED_OFFSET = 1000
"""Added to a run's seed for the training before it, so that the order of the text is not the same twice."""


@dataclass(frozen=True)
class NamedModel(ModelSpec):
    """One of several models of an experiment, told apart by its name."""

    name: str = "GPT-2"


@dataclass(frozen=True)
class TrainedModel(NamedModel):
    """A model that has been trained dense with `pretraining` before a run begins, once per seed."""

    pretraining: TrainingSpec = field(kw_only=True)


@dataclass(frozen=True)
class FineTuning(ProtocolSpec):
    """The protocol of language models, for a run whose model is a TrainedModel."""

    task: ClassVar[str] = "trained_language_model"

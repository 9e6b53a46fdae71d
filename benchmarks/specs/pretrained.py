"""Trained models that experiments start from: which they are, and how those of our own come about.

One small LLaMA serves several experiments, so that its one training is paid for once per work folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from benchmarks.experiment import Tier
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.training import TrainingSpec


@dataclass(frozen=True)
class Pretraining:
    """A training from scratch: all that decides its weights but the seed, which is 0."""

    architecture: ModelSpec
    training: TrainingSpec
    data: DataSpec
    protocol: ProtocolSpec


@dataclass(frozen=True)
class FoundationSpec:
    """A trained model by its name: trained here as `pretraining` says, or, without it, by others.

    Names of others' models are stories260K, which the mirror holds, SmolLM2-135M-Instruct, which a Python package
    carries, and ids of the Hugging Face Hub.
    """

    name: str
    pretraining: Pretraining | None = None


STORIES = FoundationSpec("stories260K")
SMOLLM2 = FoundationSpec("SmolLM2-135M-Instruct")
SMOLLM2_TEXT = DataSpec("wikitext", "wikitext-2-v1", train_bytes=3_000_000, evaluation_tokens=8_000)
"""Text to fine-tune SmolLM2 on and to judge it by on a CPU: two articles, 0.3 GFLOPs for each of their tokens."""
LLAMA_2 = FoundationSpec("meta-llama/Llama-2-7b-hf")
LLAMAS: dict[Tier, FoundationSpec] = {
    "smoke": FoundationSpec(
        "llama",
        Pretraining(
            ModelSpec(layers=2, width=64, heads=4, vocabulary=1024, positions=64, family="llama"),
            TrainingSpec(steps=100, batch_size=8, learning_rate=5e-3, micro_batch_size=8, warmup_steps=10),
            DataSpec("docstrings", "default", train_bytes=400_000, evaluation_tokens=5_000),
            ProtocolSpec("bpe-1024", sequence_length=64, stride=63, split="validation"),
        ),
    ),
    "cpu": FoundationSpec(
        "llama",
        Pretraining(
            ModelSpec(layers=4, width=128, heads=4, vocabulary=2048, positions=256, family="llama"),
            TrainingSpec(steps=2400, batch_size=4, learning_rate=2e-3, micro_batch_size=4, warmup_steps=120),
            DataSpec("opendocs", "default", train_bytes=12_000_000, evaluation_tokens=60_000),
            ProtocolSpec("bpe-2048", sequence_length=256, stride=255, split="validation"),
        ),
    ),
    "gpu": FoundationSpec(
        "llama",
        Pretraining(
            ModelSpec(layers=8, width=512, heads=8, vocabulary=32_000, positions=512, family="llama"),
            TrainingSpec(
                steps=4000, batch_size=64, learning_rate=1e-3, micro_batch_size=64, warmup_steps=200, precision="bf16",
                device="cuda",
            ),
            DataSpec("opendocs", "default", evaluation_tokens=500_000),
            ProtocolSpec("mistral-7b-v0.1", sequence_length=512, stride=511, split="validation"),
        ),
    ),
}  # fmt: skip
"""The LLaMA of our own by tier."""


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

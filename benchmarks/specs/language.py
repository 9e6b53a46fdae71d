"""Settings of language models that are trained from scratch: model, text, and how perplexity is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ModelSpec:
    """A GPT-2 shaped language model trained from scratch; `width` is a multiple of `heads`."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int
    family: str = "gpt2"
    dropout: float = 0.0


@dataclass(frozen=True)
class ScaledModel(ModelSpec):
    """A model whose matrices that write into the residual stream start divided by sqrt(2 layers).

    Deviation: the published LLaMAs do without. Four layers of 64 hardly train so, and whatever is smaller then looks
    better; GPT-2 has the scaling by itself.
    """

    scaled_residual_outputs: bool = True


@dataclass(frozen=True)
class DataSpec:
    """Source of the text: a file of `benchmarks/data`, its configuration, and how much of it is used."""

    source: str
    configuration: str
    train_bytes: int | None = None
    evaluation_tokens: int | None = None


@dataclass(frozen=True)
class ProtocolSpec:
    """Settings of measuring perplexity; a number means nothing without them.

    `stride` is the distance between two windows: `sequence_length - 1` scores every token exactly once. `bos` records
    that a mark stands before every document, as `data.text.packing` always writes it: no code reads the field, so that
    another value would change the hash of a record and nothing else.
    """

    task: ClassVar[str] = "language_model"

    tokenizer: str
    sequence_length: int
    stride: int
    split: str
    bos: bool = True

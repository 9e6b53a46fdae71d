"""Settings of experiments with BERT: the encoder, its examples, and how answers are judged.

A plan reads them, so nothing here imports torch. They accompany ModelSpec, DataSpec and ProtocolSpec, whose fields
are those of language models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class EncoderSpec:
    """A BERT with a fresh head for its task.

    Attributes:
        layers: blocks.
        width: of the residual stream, a multiple of `heads`; the feed-forward layer is four times as wide.
        heads: per block.
        vocabulary: at least the entries of the tokenizer.
        positions: longest input.
        dropout: of embeddings, attention, blocks and the head.
        weights: None trains from scratch; a Hub id names the encoder to start from, that of all-MiniLM-L6-v2 the one
            that a package carries; "sha256:..." is the fingerprint of weights that lie in a folder (`--weights`).
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int
    dropout: float = 0.1
    weights: str | None = None


MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM = EncoderSpec(layers=6, width=384, heads=12, vocabulary=30_522, positions=512, weights=MINILM_ID)
"""The pretrained BERT of tiers cpu and gpu, small enough to be fine-tuned on a CPU."""
MINILM_RATE = 1e-4
"""Its learning rate in fine-tuning: the middle of what `bert_rates` tries, until that experiment has run."""


@dataclass(frozen=True)
class ExamplesSpec:
    """Source of examples: a file of `benchmarks/data`, its configuration, how many are used (None: all)."""

    source: str
    configuration: str
    train_examples: int | None = None
    evaluation_examples: int | None = None


@dataclass(frozen=True)
class ClassificationSpec:
    """Settings of reading and judging labelled texts.

    `score` names the metric that stands for the task, or two with a plus, whose mean does, as GLUE has it:
    "accuracy", "f1+accuracy", "matthews", "pearson+spearman". `marked` gives those tokens of the second text the
    first one's token type that stand in the first, too: which words two texts share, an encoder that starts from
    nothing would take long to find out. It is off where weights are given.
    """

    task: ClassVar[str] = "text_classification"

    tokenizer: str
    sequence_length: int
    split: str
    score: str
    marked: bool = False


@dataclass(frozen=True)
class SpanSpec:
    """Settings of answering questions: windows of the context, `stride` tokens of which stand in the next one as well.

    `only_answered` trains on the windows that hold the answer alone: a model that starts from nothing otherwise learns
    little but which windows hold none. All windows are searched for answers either way. `marked` gives those tokens of
    the context the question's token type that stand in the question, too, as in ClassificationSpec. Both are off where
    weights are given.
    """

    task: ClassVar[str] = "question_answering"

    tokenizer: str
    sequence_length: int
    stride: int
    split: str
    question_tokens: int = 64
    answer_tokens: int = 30
    only_answered: bool = False
    marked: bool = False


FROM_NOTHING = frozenset({"small_dense"})
"""Methods that build a model of their own: against models that start from weights they would compare knowledge."""

"""Encoders and examples small enough for tests: texts whose class and answer stand in them in plain sight."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.data import source as sources
from benchmarks.data.examples import Labelled, LabelledCorpus, Question, QuestionCorpus
from benchmarks.experiment import Cell, MethodRef, Run
from benchmarks.specs.encoder import ClassificationSpec, EncoderSpec, ExamplesSpec, SpanSpec
from benchmarks.specs.training import ShrinkSpec, TrainingSettings, TrainingSpec

STEPS = 12
ENCODER = EncoderSpec(layers=2, width=32, heads=4, vocabulary=200, positions=40, dropout=0.0)
CLASSIFICATION = ClassificationSpec("wordpiece-200", 24, "validation", "accuracy")
SPANS = SpanSpec("wordpiece-200", 32, 8, "validation", question_tokens=10)
_PLACES = ("london", "paris", "rome", "cairo", "lima")


def labelled(classes: tuple[str, ...] = ("bad", "good")) -> LabelledCorpus:
    """Pairs of texts: the word in the second says the class, or how much, where there are no classes."""
    words = ("dreadful", "wonderful", "plain")
    count = len(classes) or 3
    made = [
        Labelled((f"film number {n % 7} was shown", f"they called it {words[n % count]} again"), float(n % count))
        for n in range(60)
    ]
    return LabelledCorpus(tuple(made[:48]), tuple(made[48:]), classes)


def questions() -> QuestionCorpus:
    """Questions of where somebody lives: the place stands behind filler of unequal length, often past one window."""
    made = []
    for n in range(60):
        place = _PLACES[n % 5]
        context = f"{'it rained and rained . ' * (n % 7)}Person {n % 11} lives in {place} now."
        made.append(Question(f"where does person {n % 11} live ?", context, (place,), context.index(place)))
    return QuestionCorpus(tuple(made[:48]), tuple(made[48:]))


def use_tiny_examples(patch: pytest.MonkeyPatch, classes: tuple[str, ...] = ("bad", "good")) -> None:
    """Every source gives the tiny examples; the configuration says of which kind."""

    def load(configuration: str, split: str, tier: str, most: int | None) -> LabelledCorpus | QuestionCorpus:
        return questions() if configuration == "questions" else labelled(classes)

    tiny = sources.Source("tiny", load, lambda configuration: str(len(classes)), lambda configuration, tier: None)
    patch.setattr(sources, "find", lambda name: tiny)


def settings(kind: str, method: str = "dense", target: float | None = None, steps: int = STEPS) -> TrainingSettings:
    """Settings of a run of a few seconds; kind: labels or questions."""
    return TrainingSettings(
        method=MethodRef.parse(method),
        target=target,
        shrink=ShrinkSpec(target, steps, start_step=2, end_step=10, interval=2, width_multiple=2),
        model=ENCODER,
        data=ExamplesSpec("tiny", kind),
        protocol=SPANS if kind == "questions" else CLASSIFICATION,
        training=TrainingSpec(steps, batch_size=8, learning_rate=5e-3, micro_batch_size=8, warmup_steps=2),
    )


def run_of(kind: str, method: str = "dense", target: float | None = None, steps: int = STEPS, **changes: object) -> Run:
    """A run of a tiny experiment; `changes` are fields of its settings."""
    chosen = dataclasses.replace(settings(kind, method, target, steps), **changes)  # type: ignore[arg-type]
    return Run(Cell("tiny", "smoke", chosen.method.name, chosen), 0)


def checkpoint(folder: Path, **sizes: int) -> Path:
    """A Hugging Face checkpoint of a BERT with a masked-language head, as the Hub has them."""
    from transformers import BertConfig, BertForMaskedLM, set_seed

    set_seed(5)
    own = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
        "vocab_size": 200, "max_position_embeddings": 40,
    }  # fmt: skip
    BertForMaskedLM(BertConfig(**{**own, **sizes})).save_pretrained(folder)
    return folder

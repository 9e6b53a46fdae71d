"""BERT on five tasks of GLUE, with half of the blocks removed during training.

What it tests: EcoSpa on an encoder, with masks for padding and pairs of sentences, on many small tasks. SST-2
(sentiment, accuracy), MRPC (paraphrase, mean of F1 and accuracy), CoLA (grammaticality, Matthews' correlation), RTE
(entailment, accuracy), STS-B (similarity, a real number; mean of Pearson's and Spearman's correlation): GLUE's own
metrics. Dense at equal steps, EcoSpa, random_pairs (the floor that a selection rule must beat) and structured movement
pruning at 50 % of the block parameters on the same size over steps, and magnitude masks at as many non-zero weights. A
small dense model is left to bert_squad: it has no weights to start from, so against a fine-tuned BERT it would compare
knowledge.

Below tier paper BERT starts from nothing, because no weights are at hand, and is told one thing that it would take long
to find out: those words of a second text that stand in the first carry the first one's token type. It then learns
SST-2 and what the overlap of two texts tells, and little of the other tasks. The row "always the commonest label" says
what a model gets that has learnt nothing: a score near it says nothing about a method. With weights in a folder:
--weights DIR, which also lowers the learning rate and marks nothing.

Command: python -m benchmarks run bert_glue --tier cpu

Hours for all runs of a tier: smoke 0.01 (5 runs), cpu 0.4 (75 runs, 2 cores), gpu 4 (75 runs, one H200-class GPU),
paper 19 (75 runs, one H200-class GPU).

Data: smoke: which installed package a docstring comes from. cpu and gpu: GLUE, validation splits, from the mirror that
ECOSPA_DATA names; cpu trains on 20,000 of SST-2's 67,349 sentences. paper: GLUE and bert-base-uncased from the Hub, 10
epochs (SST-2: 5).

Expected result: tier paper: dense near the published 93 on SST-2, 60 on CoLA and 72 on RTE, EcoSpa a few points behind.
Below it only SST-2 tells methods apart, if any task does. The smoke tier shows that everything works.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.data.source import BoundSource
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.encoder import ClassificationSpec, EncoderSpec, ExamplesSpec
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec

NAME = "bert_glue"
TARGET = 0.5
WITHOUT_TARGET = "dense"
METHODS = (WITHOUT_TARGET, "ecospa", "random_pairs", "magnitude", "movement")
SCORES = {
    "sst2": "accuracy",
    "mrpc": "f1+accuracy",
    "cola": "matthews",
    "rte": "accuracy",
    "stsb": "pearson+spearman",
}
TOKENIZER = "bert-base-uncased"
SMALL = EncoderSpec(layers=3, width=64, heads=2, vocabulary=30_522, positions=128)
BASE = EncoderSpec(layers=12, width=768, heads=12, vocabulary=30_522, positions=512)
TRAINED = replace(BASE, weights="google-bert/bert-base-uncased")


def _scale(task: str, model: EncoderSpec, training: TrainingSpec, length: int, most: int | None = None) -> Scale:
    """A task of GLUE: it shrinks from an eighth of the steps to seven tenths of them, in about 40 events."""
    steps = training.steps
    return Scale(
        model, ExamplesSpec("glue", task, train_examples=most),
        ClassificationSpec(TOKENIZER, length, "validation", SCORES[task], marked=model.weights is None), training,
        start_step=steps // 8, end_step=steps * 7 // 10, interval=max(1, steps // 70),
        width_multiple=8 if model.width >= 768 else 4,
    )  # fmt: skip


def _small(task: str, length: int, steps: int, most: int | None = None) -> Scale:
    rates = TrainingSpec(steps, 32, 1e-3, 32, warmup_steps=steps // 10, weight_decay=0.01)
    return _scale(task, SMALL, rates, length, most)


def _base(model: EncoderSpec, rate: float, steps: dict[str, int]) -> tuple[Scale, ...]:
    """All tasks in inputs of 128 tokens, 32 to a step."""
    rates = TrainingSpec(1, 32, rate, 32, warmup_steps=0, weight_decay=0.01, precision="bf16", device="cuda")
    return tuple(
        _scale(task, model, replace(rates, steps=count, warmup_steps=count // 10), 128) for task, count in steps.items()
    )


SCALES: dict[Tier, tuple[Scale, ...]] = {
    "smoke": (
        Scale(
            EncoderSpec(layers=2, width=32, heads=2, vocabulary=1024, positions=48),
            ExamplesSpec("docstring_packages", "default", train_examples=350),
            ClassificationSpec("wordpiece-1024", 48, "validation", "accuracy"),
            TrainingSpec(steps=60, batch_size=8, learning_rate=3e-3, micro_batch_size=8, warmup_steps=6),
            start_step=8, end_step=42, interval=3, width_multiple=4,
        ),
    ),
    "cpu": (
        _small("sst2", 32, 500, most=20_000),
        _small("mrpc", 96, 230),
        _small("cola", 24, 400),
        _small("rte", 128, 150),
        _small("stsb", 64, 300),
    ),
    "gpu": _base(BASE, 5e-5, {"sst2": 6300, "mrpc": 1150, "cola": 2680, "rte": 780, "stsb": 1800}),
    "paper": _base(TRAINED, 3e-5, {"sst2": 10_500, "mrpc": 1150, "cola": 2680, "rte": 780, "stsb": 1800}),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every method on every task, with a target but for the dense model."""
    return tuple(
        Cell(NAME, tier, method.name, scale.settings(method, None if method.name == WITHOUT_TARGET else TARGET))
        for scale in SCALES[tier]
        for method in methods
    )


def data_sources(tier: Tier) -> tuple[BoundSource, ...]:
    """All tasks."""
    return tuple(source for scale in SCALES[tier] for source in scale.sources)


EXPERIMENT = Experiment(
    name=NAME,
    question="BERT on five tasks of GLUE at 50 % of its blocks: EcoSpa, random, magnitude masks, movement and dense",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.9, machine="2 cores, 4 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=4, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=19, machine="one H200-class GPU", memory=3.1, data=0.5, disk=6),
    },
    methods=METHODS,
    cells=cells,
    sources=data_sources,
)

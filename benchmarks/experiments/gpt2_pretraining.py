"""GPT-2 from scratch: perplexity of models that end 1.6 or 2.2 times smaller vs. dense ones.

What it tests: the paper's GPT-2 table. Sizes are shares of ALL parameters, as the paper counts them (1.6 times: the
earlier version, 2.2 times: GPT-2-Medium). The published dense model has been trained for twice as many epochs as the
sparse one, which the reviews objected to, so there are two dense models, and a small one of equal size:

- ecospa: shrinks on the way, a cubic curve within the first three quarters of the steps.
- small_dense: that size from the first step on.
- dense: as many steps as ecospa.
- dense_twice_steps: twice as many, the paper's own comparison.

At tier cpu the sizes are shares of the blocks, 50 % and 30 %, which make that model 1.6 and 2.2 times smaller as a
whole. All but dense_twice_steps is run once, in coupled_vs_uncoupled, with its other controls: small dense at equal
training FLOPs, a fresh model in EcoSpa's final shape, dense of EcoSpa's average size.

Command: python -m benchmarks run gpt2_pretraining --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.01 (6 runs), cpu 1.4 (38 runs, all but 8 shared, 2 cores), gpu 1.2 (18 runs, one
H200-class GPU), paper 900 (36 runs, one H200-class GPU).

Data: smoke: docstrings of the installed packages. cpu and gpu: OpenDocs, from the mirror that ECOSPA_DATA names; cpu
takes 20 tokens per block parameter (specs/from_scratch.py). paper:
WikiText-103, 1024 tokens, 512 sequences per step, AdamW, 6e-4 (Small) and 1.5e-4 (Medium), 225 steps of warm-up: one
epoch. 11,250 steps are 50 epochs, 22,500 the 100 of the published dense models. Deviation: cosine decay instead of
linear, bf16 instead of fp16, and the model of the last step instead of the best one on the validation text.

Expected result: at full scale the dense models have seen the text so often that they may be worse than smaller ones,
so compare with small_dense. At tier cpu no text is seen twice: there the dense model leads, more with twice the steps,
and the question is how much of its lead over small_dense the shrinking model keeps. The smoke tier shows that
everything works.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import coupled_vs_uncoupled
from benchmarks.specs import from_scratch
from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.pretrained import NamedModel
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec

NAME = "gpt2_pretraining"
TIMES_SMALLER = (1.6, 2.2)
TARGETS = tuple(round(1 / times, 4) for times in TIMES_SMALLER)
"""Shares of all parameters."""
TWICE = "dense_twice_steps"
WITHOUT_TARGET = ("dense", TWICE)
METHODS = (*WITHOUT_TARGET, "ecospa", "small_dense")
SHARED = ("dense", "ecospa", "small_dense")
"""At tier cpu cells of coupled_vs_uncoupled."""


_OPENDOCS = DataSpec("opendocs", "default", evaluation_tokens=500_000)
_WIKITEXT_103 = DataSpec("wikitext", "wikitext-103-raw-v1")
_SMALL = NamedModel(layers=12, width=768, heads=12, vocabulary=50257, positions=1024, name="GPT-2-Small")
_MEDIUM = NamedModel(layers=24, width=1024, heads=16, vocabulary=50257, positions=1024, name="GPT-2-Medium")


def _published(model: NamedModel, learning_rate: float, micro_batch_size: int) -> Scale:
    """A published GPT-2 by the published recipe."""
    return Scale(
        replace(model, dropout=0.1),
        _WIKITEXT_103,
        ProtocolSpec("gpt2", sequence_length=1024, stride=1023, split="test"),
        TrainingSpec(
            steps=11_250, batch_size=512, learning_rate=learning_rate, micro_batch_size=micro_batch_size,
            warmup_steps=225, precision="bf16", device="cuda",
        ),
        start_step=225, end_step=8_425, interval=205, width_multiple=8,
    )  # fmt: skip


SCALES: dict[Tier, tuple[Scale, ...]] = {
    "smoke": (
        Scale(
            NamedModel(layers=3, width=64, heads=4, vocabulary=512, positions=64, name="GPT-2, 3 layers"),
            DataSpec("docstrings", "default", train_bytes=400_000, evaluation_tokens=5_000),
            ProtocolSpec("bpe-512", sequence_length=64, stride=63, split="validation"),
            TrainingSpec(steps=40, batch_size=8, learning_rate=4e-3, micro_batch_size=8, warmup_steps=4),
            start_step=4, end_step=30, interval=2, width_multiple=4,
        ),
    ),
    "cpu": (from_scratch.scale(),),
    "gpu": (
        Scale(
            _SMALL,
            _OPENDOCS,
            ProtocolSpec("gpt2", sequence_length=1024, stride=1023, split="validation"),
            TrainingSpec(
                steps=1300, batch_size=32, learning_rate=6e-4, micro_batch_size=32, warmup_steps=100,
                precision="bf16", device="cuda",
            ),
            start_step=100, end_step=980, interval=22, width_multiple=8,
        ),
    ),
    "paper": (_published(_SMALL, 6e-4, 32), _published(_MEDIUM, 1.5e-4, 16)),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every model; the dense ones once, the others at both sizes."""
    return tuple(
        _cell(tier, scale, method, target)
        for scale in SCALES[tier]
        for method in methods
        for target in ((None,) if method.name in WITHOUT_TARGET else targets(tier))
    )


def targets(tier: Tier) -> tuple[float, ...]:
    """Final sizes: shares of all parameters, at tier cpu shares of the blocks that come to the same."""
    return from_scratch.TARGETS if tier == "cpu" else TARGETS


def _cell(tier: Tier, scale: Scale, method: MethodRef, target: float | None) -> Cell:
    if tier == "cpu" and method.name in SHARED:
        return coupled_vs_uncoupled.cell(tier, method, target)
    seeds = from_scratch.CLAIM_SEEDS if tier == "cpu" and method.name == TWICE else None
    if method.name == TWICE:
        method = MethodRef(TWICE, "baselines.dense:Dense")
        scale = replace(scale, training=replace(scale.training, steps=2 * scale.training.steps))
    scope = "blocks" if tier == "cpu" else "parameters"
    return Cell(NAME, tier, method.name, scale.settings(method, target, target_scope=scope), seeds)


EXPERIMENT = Experiment(
    name=NAME,
    question="GPT-2 from scratch, ending 1.6 and 2.2 times smaller: vs. dense at equal and at twice the steps",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=1.4, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=1.2, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=900, machine="one H200-class GPU", memory=46, data=0.3, disk=18),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier][0].sources,
)

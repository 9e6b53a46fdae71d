"""LLaMA from scratch: does shrinking on the way save more memory, at the same perplexity, than training in low rank?

What it tests: the paper's LLaMA table, in the setting of GaLore (arXiv 2403.03507, Table 2): full rank, GaLore, low
rank, LoRA and ReLoRA, beside EcoSpa and a small dense model of its final size. Memory is counted from the tensors that
training holds: weights, gradients, optimizer state; at its peak and at the last step, because EcoSpa starts dense.

GaLore has five times the learning rate of the others: its scale of 0.25 shortens every step, and its authors train at
0.01, ten times a usual rate. All other methods share one rate, which nobody tuned for any of them.

Command: python -m benchmarks run llama_pretraining --tier cpu

Hours for all runs of a tier: smoke 0.03 (9 runs), cpu 1.2 (27 runs, 2 cores), gpu 3 (27 runs, one H200-class GPU).

Data: smoke: docstrings of the installed packages. cpu and gpu: OpenDocs, from the mirror that ECOSPA_DATA names.

Expected result: GaLore near full rank, LoRA and ReLoRA behind, low rank last, as published; EcoSpa near small_dense.
EcoSpa holds about half of the bytes at the end and all of them at its peak; GaLore saves optimizer state alone. The
smoke tier shows that everything works; its order means nothing.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.experiment import (
    Cell,
    DataSpec,
    Experiment,
    MethodRef,
    ModelSpec,
    ProtocolSpec,
    Tier,
    TierPlan,
    TrainingSettings,
    TrainingSpec,
)
from benchmarks.scale import Scale, execute

NAME = "llama_pretraining"
TARGETS = (0.5, 0.3)
WITHOUT_TARGET = ("dense", "galore", "low_rank", "lora", "relora")
"""Those that keep the size, and low rank at the rank of GaLore's table, a quarter of every matrix's smaller side."""
METHODS = (*WITHOUT_TARGET, "ecospa", "small_dense")
FASTER = {"galore": 5.0}
"""Learning rates that differ from the others', as factors."""


SCALES: dict[Tier, Scale] = {
    "smoke": Scale(
        ModelSpec(layers=3, width=64, heads=4, vocabulary=2048, positions=64, family="llama"),
        DataSpec("docstrings", "default", evaluation_tokens=10_000),
        ProtocolSpec("bpe-2048", sequence_length=64, stride=63, split="validation"),
        TrainingSpec(steps=80, batch_size=8, learning_rate=6e-3, micro_batch_size=8, warmup_steps=8, weight_decay=0.0),
        start_step=8, end_step=60, interval=4, width_multiple=4,
    ),
    "cpu": Scale(
        ModelSpec(layers=4, width=192, heads=6, vocabulary=4096, positions=128, family="llama"),
        DataSpec("opendocs", "default", train_bytes=12_000_000, evaluation_tokens=60_000),
        ProtocolSpec("bpe-4096", sequence_length=128, stride=127, split="validation"),
        TrainingSpec(
            steps=800, batch_size=8, learning_rate=2e-3, micro_batch_size=8, warmup_steps=80, weight_decay=0.0
        ),
        start_step=80, end_step=600, interval=13, width_multiple=4,
    ),
    "gpu": Scale(
        ModelSpec(layers=8, width=512, heads=8, vocabulary=32_000, positions=256, family="llama"),
        DataSpec("opendocs", "default", evaluation_tokens=500_000),
        ProtocolSpec("gpt2", sequence_length=256, stride=255, split="validation"),
        TrainingSpec(
            steps=2000, batch_size=128, learning_rate=1e-3, micro_batch_size=128, warmup_steps=200, weight_decay=0.0,
            precision="bf16", device="cuda",
        ),
        start_step=200, end_step=1500, interval=32, width_multiple=8,
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Methods without a target once, the others at every target."""
    return tuple(
        Cell(NAME, tier, method.name, _settings(SCALES[tier], method, target))
        for method in methods
        for target in ((None,) if method.name in WITHOUT_TARGET else TARGETS)
    )


def _settings(scale: Scale, method: MethodRef, target: float | None) -> TrainingSettings:
    faster = replace(scale.training, learning_rate=scale.training.learning_rate * FASTER.get(method.name, 1.0))
    return replace(scale, training=faster).settings(method, target)


EXPERIMENT = Experiment(
    name=NAME,
    question="LLaMA from scratch: EcoSpa beside full rank, GaLore, low rank, LoRA, ReLoRA; perplexity and bytes held",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.03, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=1.2, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=3, machine="one H200-class GPU"),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier].sources,
    execute=execute,
    absent={"paper": "1.1 to 13.1 billion tokens of C4 have to be streamed, which the runner does not do yet"},
)

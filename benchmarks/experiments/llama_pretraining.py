"""LLaMA from scratch: memory and perplexity of shrinking during training vs. training in low rank.

What it tests: the paper's LLaMA table, in the setting of GaLore (arXiv 2403.03507, Table 2): full rank, GaLore, low
rank, LoRA and ReLoRA, vs. EcoSpa and a small dense model of its final size. Memory is counted from the tensors that
training holds: weights, gradients, optimizer state; at its peak and at the last step, because EcoSpa starts dense.

Tier cpu is on the scale of all from-scratch experiments (specs/from_scratch.py): 20 tokens per block parameter, rates
of the arms chosen in learning_rates on the validation text, and the controls of coupled_vs_uncoupled, which say there
what they are: small dense at equal training FLOPs, dense of the average size, a fresh model in EcoSpa's final shape,
uniform and random pairs on the same curve, one cut early and one late. Eight seeds at 50 %, the size of the paper's
LLaMA-1B, three at 30 %. GaLore has a rate of its own in every tier, because its scale of 0.25 shortens every step of
the blocks, and its authors train at 0.01; embeddings and head, which it leaves to AdamW, then have four times the rate
of the blocks, which is no merit of low-rank moments.

Deviation: at tier cpu W_O and W_down start divided by sqrt(2 layers), as GPT-2's do and the published LLaMAs' do not.
Without it four layers hardly train, and whatever is smaller looks better: the dense model's distance to the small one
is mostly that.

Command: python -m benchmarks run llama_pretraining --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.03 (9 runs), cpu 4 (111 runs, 2 cores), gpu 3 (27 runs, one H200-class GPU),
paper 4000 (108 runs, one H200-class GPU each; LLaMA-1B is nine tenths of it, so take --methods and --seeds).

Data: smoke: docstrings of the installed packages. cpu and gpu: OpenDocs, from the mirror that ECOSPA_DATA names. paper:
C4 from the Hub, streamed once per model size into a file of tokens in the work folder (26 GB for LLaMA-1B, 50 GB for
all four), 60M to 1B parameters, 512 sequences of 256 tokens per step, 1.3 to 13.1 billion tokens, evaluated on 10
million. A checkpoint of LLaMA-1B has 21 GB (weights twice, and AdamW's moments); two are kept and a third is written
before one goes. Where it differs from the published setting: documents are packed, weights are kept in single precision
and computed with in bfloat16, and the dense rates are usual ones, not tuned.

Expected result: GaLore near full rank, LoRA and ReLoRA behind, low rank last, as published; EcoSpa between dense and
small_dense. EcoSpa holds about half of the bytes at the end and all of them at its peak; GaLore saves optimizer state
alone. The smoke tier shows that everything works; its order means nothing.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.data.text.streamed import StreamedDataSpec
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import coupled_vs_uncoupled
from benchmarks.specs.from_scratch import CLAIM_SEEDS, llama_scale
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.matched import CONTROLS, control_cell
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec

NAME = "llama_pretraining"
TARGETS = (0.5, 0.3)
WITHOUT_TARGET = ("dense", "galore", "low_rank", "lora", "relora")
"""Those that keep the size, and low rank at the rank of GaLore's table, a quarter of every matrix's smaller side."""
PLAIN = (*WITHOUT_TARGET, "ecospa", "small_dense")
"""Methods of every tier; the others are controls that tier cpu has, where a run takes minutes."""
METHODS = (*PLAIN, "uniform_pairs", "random_pairs", *CONTROLS, *coupled_vs_uncoupled.ONE_CUT)
WITH_CLAIM = ("dense", "ecospa", "small_dense", "small_dense_equal_flops", "final_shape", "uniform_pairs")
"""Arms of tier cpu with eight seeds at 50 %."""
GALORE_RATES: dict[Tier, float] = {"smoke": 0.03, "cpu": 0.01, "gpu": 0.01, "paper": 0.01}
"""All other methods have the rate of their scale."""


def _llama(layers: int, width: int, heads: int, steps: int, rate: float, micro_batch_size: int) -> Scale:
    """A row of GaLore's table: 512 sequences of 256 tokens per step, warm-up for a tenth of the steps."""
    return Scale(
        ModelSpec(layers, width, heads, vocabulary=32_000, positions=256, family="llama"),
        StreamedDataSpec("c4", "en", train_tokens=steps * 512 * 256, evaluation_tokens=10_000_000),
        ProtocolSpec("t5-base", sequence_length=256, stride=255, split="validation"),
        TrainingSpec(
            steps, batch_size=512, learning_rate=rate, micro_batch_size=micro_batch_size, warmup_steps=steps // 10,
            weight_decay=0.0, max_grad_norm=0.0, precision="bf16", device="cuda",
        ),
        start_step=steps // 10, end_step=3 * steps // 4, interval=steps // 62, width_multiple=8,
    )  # fmt: skip


SCALES: dict[Tier, tuple[Scale, ...]] = {
    "smoke": (
        Scale(
            ModelSpec(layers=3, width=64, heads=4, vocabulary=2048, positions=64, family="llama"),
            DataSpec("docstrings", "default", train_bytes=400_000, evaluation_tokens=5_000),
            ProtocolSpec("bpe-2048", sequence_length=64, stride=63, split="validation"),
            TrainingSpec(
                steps=80, batch_size=8, learning_rate=6e-3, micro_batch_size=8, warmup_steps=8, weight_decay=0.0
            ),
            start_step=8, end_step=60, interval=4, width_multiple=4,
        ),
    ),
    "cpu": (llama_scale(),),
    "gpu": (
        Scale(
            ModelSpec(layers=8, width=512, heads=8, vocabulary=32_000, positions=256, family="llama"),
            DataSpec("opendocs", "default", evaluation_tokens=500_000),
            ProtocolSpec("mistral-7b-v0.1", sequence_length=256, stride=255, split="validation"),
            TrainingSpec(
                steps=2000, batch_size=128, learning_rate=1e-3, micro_batch_size=128, warmup_steps=200,
                weight_decay=0.0, precision="bf16", device="cuda",
            ),
            start_step=200, end_step=1500, interval=32, width_multiple=8,
        ),
    ),
    "paper": (
        _llama(layers=8, width=512, heads=8, steps=10_000, rate=2e-3, micro_batch_size=256),
        _llama(layers=12, width=768, heads=12, steps=20_000, rate=1e-3, micro_batch_size=128),
        _llama(layers=24, width=1024, heads=16, steps=60_000, rate=1e-3, micro_batch_size=64),
        _llama(layers=24, width=2048, heads=32, steps=100_000, rate=5e-4, micro_batch_size=32),
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """On every model, methods without a target once, the others at every target; the controls at tier cpu alone."""
    return tuple(
        _cell(tier, scale, method, target)
        for scale in SCALES[tier]
        for method in methods
        if tier == "cpu" or method.name in PLAIN or method.name not in METHODS
        for target in ((None,) if method.name in WITHOUT_TARGET else TARGETS)
    )


def _cell(tier: Tier, scale: Scale, method: MethodRef, target: float | None) -> Cell:
    seeds = CLAIM_SEEDS if tier == "cpu" and method.name in WITH_CLAIM and target != TARGETS[-1] else None
    if method.name in CONTROLS:
        return control_cell(method.name, scale, _cell(tier, scale, MethodRef("ecospa"), target), seeds)
    rate = GALORE_RATES[tier] if method.name == "galore" else scale.training.learning_rate
    own = replace(scale, training=replace(scale.training, learning_rate=rate))
    reference, shrink = coupled_vs_uncoupled.one_cut(own, method)
    return Cell(NAME, tier, method.name, own.settings(reference, target, **shrink), seeds)


EXPERIMENT = Experiment(
    name=NAME,
    question="LLaMA from scratch: EcoSpa vs. full rank, GaLore, low rank, LoRA, ReLoRA; perplexity and bytes held",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.03, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=4, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=3, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=4000, machine="one H200-class GPU", memory=46, data=50, disk=120),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier][0].sources,
)

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

Methods that came after GaLore (PEERS) stand next to it at smoke, cpu and paper: optimizers with less state than AdamW
(APOLLO, Fira, Muon, Alice, RACS, SCALE), optimizers with as much or more that promise fewer steps (SOAP, Conda,
Stable-SPAM), and layers with fewer weights (CoLA, SLTrain, at a quarter of the rank, as low rank). Those of the library
pytorch-optimizer need the extra `peers`. Their rates are their authors' in tier paper, and at tier cpu the middle one
of the three that learning_rates tries, until its records say another.

Deviation: at tier cpu W_O and W_down start divided by sqrt(2 layers), as GPT-2's do and the published LLaMAs' do not.
Without it four layers hardly train, and whatever is smaller looks better: the dense model's distance to the small one
is mostly that.

Command: python -m benchmarks run llama_pretraining --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.07 (21 runs), cpu 5.3 (147 runs, 2 cores), gpu 3 (27 runs, one H200-class GPU),
paper 9300 (252 runs, one H200-class GPU each; LLaMA-1B is nine tenths of it, so take --methods and --seeds). Hours of
the peers are those of a dense run: nobody has timed them. SOAP holds some 25 GB more than AdamW on LLaMA-1B.

Data: smoke: docstrings of the installed packages. cpu and gpu: OpenDocs, from the mirror that ECOSPA_DATA names. paper:
C4 from the Hub, streamed once per model size into a file of tokens in the work folder (26 GB for LLaMA-1B, 50 GB for
all four), 60M to 1B parameters, 512 sequences of 256 tokens per step, 1.3 to 13.1 billion tokens, evaluated on 10
million. A checkpoint of LLaMA-1B has 21 GB (weights twice, and AdamW's moments); two are kept and a third is written
before one goes. Where it differs from the published setting: documents are packed, weights are kept in single precision
and computed with in bfloat16, and the dense rates are usual ones, not tuned.

Expected result: GaLore near full rank, LoRA and ReLoRA behind, low rank last, as published; EcoSpa between dense and
small_dense. Of the peers Muon, SOAP, Alice, RACS and SCALE ahead of full rank, by less than their papers say where the
dense rate is tuned; CoLA and SLTrain between low rank and full rank. EcoSpa holds about half of the bytes at the end
and all of them at its peak; GaLore saves optimizer state alone, CoLA and SLTrain save weights as well, from the first
step. The smoke tier shows that everything works; its order means nothing.
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
PEERS = (
    *("apollo", "apollo_mini", "fira", "muon", "alice", "racs", "scale", "soap", "conda", "stable_spam"),
    *("cola", "sltrain"),
)
"""Methods after GaLore, in every tier but gpu."""
OF_EVERY_TIER = ("dense", "galore", "low_rank", "lora", "relora")
WITHOUT_TARGET = (*OF_EVERY_TIER, *PEERS)
"""Those that keep the size, and layers at the rank of GaLore's table, a quarter of every matrix's smaller side."""
PLAIN = (*OF_EVERY_TIER, "ecospa", "small_dense")
"""Methods of every tier; the others, but PEERS, are controls that tier cpu has, where a run takes minutes."""
METHODS = (*PLAIN, "uniform_pairs", "random_pairs", *CONTROLS, *coupled_vs_uncoupled.ONE_CUT, *PEERS)
CPU_ALONE = tuple(name for name in METHODS if name not in (*PLAIN, *PEERS))
WITH_CLAIM = ("dense", "ecospa", "small_dense", "small_dense_equal_flops", "final_shape", "uniform_pairs")
"""Arms of tier cpu with eight seeds at 50 %."""
OF_001 = ("galore", "apollo", "apollo_mini", "fira", "conda")
"""Methods whose authors train at 0.01."""
RATES: dict[Tier, dict[str, float]] = {
    "smoke": dict.fromkeys(("galore", "fira", "conda"), 0.03),
    "cpu": {**dict.fromkeys(OF_001, 0.01), **dict.fromkeys(("alice", "racs", "scale"), 2e-3)},
    "gpu": {"galore": 0.01},
    "paper": {
        **dict.fromkeys(OF_001, 0.01),
        **dict.fromkeys(("alice", "racs", "scale"), 1e-3),
        **dict.fromkeys(("soap", "cola", "sltrain"), 3e-3),
    },
}
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
    left_out = {"cpu": (), "gpu": (*CPU_ALONE, *PEERS)}.get(tier, CPU_ALONE)
    return tuple(
        _cell(tier, scale, method, target)
        for scale in SCALES[tier]
        for method in methods
        if method.name not in left_out
        for target in ((None,) if method.name in WITHOUT_TARGET else TARGETS)
    )


def _cell(tier: Tier, scale: Scale, method: MethodRef, target: float | None) -> Cell:
    seeds = CLAIM_SEEDS if tier == "cpu" and method.name in WITH_CLAIM and target != TARGETS[-1] else None
    if method.name in CONTROLS:
        return control_cell(method.name, scale, _cell(tier, scale, MethodRef("ecospa"), target), seeds)
    rate = RATES[tier].get(method.name, scale.training.learning_rate)
    own = replace(scale, training=replace(scale.training, learning_rate=rate))
    reference, shrink = coupled_vs_uncoupled.one_cut(own, method)
    return Cell(NAME, tier, method.name, own.settings(reference, target, **shrink), seeds)


EXPERIMENT = Experiment(
    name=NAME,
    question="LLaMA from scratch: EcoSpa vs. full rank, GaLore and what came after it, low rank, LoRA, ReLoRA; "
    "perplexity and bytes held",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.07, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=5.3, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=3, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=9300, machine="one H200-class GPU", memory=46, data=50, disk=120),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier][0].sources,
)

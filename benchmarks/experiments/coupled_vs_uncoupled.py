"""Coupled vs. uncoupled sparsity: matrices judged and cut together, or each on its own.

What it tests: the paper's thesis, without any unknown of the paper's tables. GPT-2 is trained from scratch and shrunk
to 50 % and to 30 % of its block parameters on the way. All methods that shrink follow the same size over steps (a cubic
curve, about 40 events within the first three quarters of the steps; 20 at tier smoke), so that none wins by staying
large for longer:

- ecospa: pairs chosen by joint importance, indices by joint scores, removed aligned.
- ecospa_own_pace: the same, but K and theta alone decide how much an event cuts; it may end larger than the target.
- uncoupled: every matrix chooses its own indices; what only one of two keeps is zero.
- uncoupled_importance: pairs chosen by the importance of single matrices, indices removed aligned.
- random_pairs: random choice, removed aligned. The floor that a selection rule must beat.
- magnitude: single weights masked by their size; nothing becomes smaller or faster.

Two variants leave that curve, because they ask whether it has to be gradual. Both cut once, to the target, by what they
have seen in as many steps as lie between two events of the others; the cut goes through the least important pairs down
to their floors, as if all events of the gradual one fell on one step:

- ecospa_at_start: where the others begin. It trains small for nearly all steps, and costs least.
- ecospa_at_end: where the others end, so that all have as many steps left to recover. It costs most.

Two controls: dense (equal steps) and small_dense (equal final size, that size from the first step on).

Command: python -m benchmarks run coupled_vs_uncoupled --tier cpu

Hours for all runs of a tier: smoke 0.06 (17 runs, 2 cores), cpu 1.3 (57 runs, 2 cores), gpu 5 (57 runs, one H200-class
GPU), paper 250 (57 runs, one H200-class GPU).

Data: smoke: docstrings of the installed packages. cpu: WikiText-2. gpu: OpenDocs (about 45 M tokens, once over).
paper: WikiText-103, 50 epochs, GPT-2 Small, 1024 tokens, 512 sequences per step, AdamW, learning rate 6e-4.

Expected result: at equal size over steps, ecospa is ahead of uncoupled, and the more so at 30 %; it is ahead of
random_pairs, and uncoupled_importance is near ecospa. Whether it beats small_dense, which has trained at its final size
all along, is an open question at every scale. One cut at the start loses what the importance of untrained weights does
not tell; one at the end has most to repair. The smoke tier shows that everything works; its order means nothing.
Tier cpu is too short as well: the dense model is not ahead of the small one there, so it cannot rank the rules.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSettings, TrainingSpec

NAME = "coupled_vs_uncoupled"
TARGETS = (0.5, 0.3)
WITHOUT_TARGET = "dense"
METHODS = (
    "ecospa",
    "ecospa_own_pace",
    "uncoupled",
    "uncoupled_importance",
    "random_pairs",
    "magnitude",
    WITHOUT_TARGET,
    "small_dense",
    "ecospa_at_start",
    "ecospa_at_end",
)
ONE_CUT = ("ecospa_at_start", "ecospa_at_end")
ECOSPA = "baselines.coupled_sparsity:EcoSpa"


SCALES: dict[Tier, Scale] = {
    "smoke": Scale(
        ModelSpec(layers=3, width=128, heads=4, vocabulary=2048, positions=64),
        DataSpec("docstrings", "default", train_bytes=400_000, evaluation_tokens=5_000),
        ProtocolSpec("bpe-2048", sequence_length=64, stride=63, split="validation"),
        TrainingSpec(steps=60, batch_size=8, learning_rate=2e-3, micro_batch_size=8, warmup_steps=6),
        start_step=6,
        end_step=46,
        interval=2,
        width_multiple=4,
    ),
    "cpu": Scale(
        ModelSpec(layers=4, width=128, heads=4, vocabulary=2048, positions=128),
        DataSpec("wikitext", "wikitext-2-v1", evaluation_tokens=60_000),
        ProtocolSpec("bpe-2048", sequence_length=128, stride=127, split="test"),
        TrainingSpec(steps=600, batch_size=8, learning_rate=2e-3, micro_batch_size=8, warmup_steps=40),
        start_step=40,
        end_step=440,
        interval=10,
        width_multiple=4,
    ),
    "gpu": Scale(
        ModelSpec(layers=12, width=768, heads=12, vocabulary=50257, positions=1024),
        DataSpec("opendocs", "default", evaluation_tokens=500_000),
        ProtocolSpec("gpt2", sequence_length=1024, stride=1023, split="validation"),
        TrainingSpec(
            steps=1300, batch_size=32, learning_rate=6e-4, micro_batch_size=32, warmup_steps=100, precision="bf16",
            device="cuda",
        ),
        start_step=100,
        end_step=980,
        interval=22,
        width_multiple=8,
    ),
    "paper": Scale(
        ModelSpec(layers=12, width=768, heads=12, vocabulary=50257, positions=1024, dropout=0.1),
        DataSpec("wikitext", "wikitext-103-raw-v1"),
        ProtocolSpec("gpt2", sequence_length=1024, stride=1023, split="test"),
        TrainingSpec(
            steps=11_250, batch_size=512, learning_rate=6e-4, micro_batch_size=32, warmup_steps=225, precision="bf16",
            device="cuda",
        ),
        start_step=225,
        end_step=8_425,
        interval=205,
        width_multiple=8,
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every method at every target, and the dense model once; at tier smoke the single cuts to one target only."""
    wanted: list[tuple[MethodRef, float | None]] = []
    for target in TARGETS:
        skipped = (WITHOUT_TARGET, *(ONE_CUT if tier == "smoke" and target != TARGETS[0] else ()))
        wanted += [(method, target) for method in methods if method.name not in skipped]
    wanted += [(method, None) for method in methods if method.name == WITHOUT_TARGET]
    return tuple(Cell(NAME, tier, method.name, _settings(SCALES[tier], method, target)) for method, target in wanted)


def _settings(scale: Scale, method: MethodRef, target: float | None) -> TrainingSettings:
    if method.name not in ONE_CUT:
        return scale.settings(method, target)
    step = scale.end_step if method.name == "ecospa_at_end" else scale.start_step + scale.interval
    return scale.settings(MethodRef(method.name, ECOSPA), target, start_step=step - scale.interval, end_step=step)


EXPERIMENT = Experiment(
    name=NAME,
    question="GPT-2 from scratch to 50 % and 30 %: aligned removal by joint scores vs. uncoupled, random and dense",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.06, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=1.3, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=5, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=250, machine="one H200-class GPU", memory=46, data=0.3, disk=7),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier].sources,
)

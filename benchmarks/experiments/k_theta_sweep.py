"""Grid of K and theta, in pre-training and in fine-tuning (the paper's Appendix C.1).

What it tests: every K in 10, 30, 50 % of the pairs with every theta in 70, 90, 95 % of the score, once from scratch and
once on a model that has been trained dense before. All end at the same size at the same step. In between they keep to
the paper's rule: K and theta decide how much an event cuts, and the events are spaced evenly so that the target is
reached at that step (method ecospa_spaced). So all follow nearly one size curve, in about 5 large steps for K 50 % and
theta 70 %, in about 110 small ones for K 10 % and theta 95 %. What K and theta change is how coarse the steps are, how
many pairs share a step, and how deep a pair is cut at once. At a fixed interval instead, they would mostly change how
long a model stays large; on a prescribed curve theta would change almost nothing.

Control: dense, equal steps, in both stages. No small dense model in the trained stage: it could not start from what
that one starts from. From scratch, tier cpu has the scale of coupled_vs_uncoupled, whose dense model and controls it
shares (at 30 % of the blocks).

Command: python -m benchmarks run k_theta_sweep --tier cpu

Hours for all runs of a tier: smoke 0.01 (10 runs), cpu 1.3 (65 runs, 8 of them shared, and three models to train,
2 cores), gpu 6 (60 runs, one H200-class GPU).

Data: smoke: docstrings of the installed packages. cpu and gpu: OpenDocs, from the mirror that ECOSPA_DATA names.
Fine-tuning goes on with the text of the pre-training, at a quarter of its learning rate: there are no trained weights
of a GPT-2 at hand, and what is asked is what trained weights do to K.

Expected result: differences are small next to what the size itself costs. A small theta cuts a pair deeply at once, so
it should lose where weights matter already (fine-tuning); a large K spreads the cut over more pairs. The smoke tier
shows that everything works; its order means nothing.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import coupled_vs_uncoupled, sparsity_limits
from benchmarks.specs import from_scratch
from benchmarks.specs.language import ProtocolSpec
from benchmarks.specs.pretrained import NamedModel, TrainedModel
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec

NAME = "k_theta_sweep"
TARGET = 0.4
"""Share of the block parameters that every run ends with, but those from scratch of tier cpu."""
SHARES_OF_PAIRS = (0.1, 0.3, 0.5)
SHARES_OF_SCORE = (0.7, 0.9, 0.95)
CLASS = "baselines.coupled_sparsity:EcoSpaSpaced"
GRID = {
    f"ecospa_k{100 * top_k:.0f}_theta{100 * theta:.0f}": (top_k, theta)
    for top_k in SHARES_OF_PAIRS
    for theta in SHARES_OF_SCORE
}
"""A name of its own for every K and theta, because a method at a target is one cell of a table."""
INNER = [name for name, (top_k, theta) in GRID.items() if top_k == 0.3 or theta == 0.9]
CONTROL = "dense"
FROM_SCRATCH, TRAINED = "from scratch", "trained"


def _stages(tier: Tier, pretraining: TrainingSpec, fine_tuning: TrainingSpec) -> tuple[Scale, Scale]:
    """Both stages of a tier, on the model and the text of sparsity_limits."""
    subject = sparsity_limits.SUBJECTS[tier]
    trained = replace(subject.model, name=TRAINED)
    old, protocol = subject.model, subject.protocol
    fresh = NamedModel(old.layers, old.width, old.heads, old.vocabulary, old.positions, name=FROM_SCRATCH)
    plain = ProtocolSpec(protocol.tokenizer, protocol.sequence_length, protocol.stride, protocol.split)

    def scale(model: NamedModel, protocol: ProtocolSpec, training: TrainingSpec) -> Scale:
        start, end = training.warmup_steps, 3 * training.steps // 4
        width_multiple = 8 if tier == "gpu" else 4
        return Scale(model, subject.data, protocol, training, start, end, max(1, (end - start) // 40), width_multiple)

    return scale(fresh, plain, pretraining), scale(trained, protocol, fine_tuning)


SCALES: dict[Tier, tuple[Scale, Scale]] = {
    "smoke": _stages(
        "smoke",
        TrainingSpec(steps=24, batch_size=8, learning_rate=4e-3, micro_batch_size=8, warmup_steps=4),
        TrainingSpec(steps=24, batch_size=8, learning_rate=1e-3, micro_batch_size=8, warmup_steps=4),
    ),
    "cpu": (
        from_scratch.scale(),
        _stages(
            "cpu",
            TrainingSpec(steps=800, batch_size=8, learning_rate=3e-3, micro_batch_size=8, warmup_steps=60),
            TrainingSpec(steps=400, batch_size=8, learning_rate=7.5e-4, micro_batch_size=8, warmup_steps=20),
        )[1],
    ),
    "gpu": _stages(
        "gpu",
        TrainingSpec(
            steps=1300, batch_size=32, learning_rate=6e-4, micro_batch_size=32, warmup_steps=100, precision="bf16",
            device="cuda",
        ),
        TrainingSpec(
            steps=500, batch_size=32, learning_rate=1.5e-4, micro_batch_size=32, warmup_steps=30, precision="bf16",
            device="cuda",
        ),
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every K and theta in both stages, at tier smoke the four extreme ones, and the dense control in each."""
    wanted = [method for method in methods if tier != "smoke" or method.name not in INNER]
    return tuple(_cell(tier, scale, method) for scale in SCALES[tier] for method in wanted)


def _cell(tier: Tier, scale: Scale, method: MethodRef) -> Cell:
    shared = tier == "cpu" and not isinstance(scale.model, TrainedModel)
    if shared and method.name in coupled_vs_uncoupled.METHODS:
        return coupled_vs_uncoupled.cell(tier, method, None if method.name == CONTROL else from_scratch.TARGETS[-1])
    if method.name == CONTROL:
        return Cell(NAME, tier, CONTROL, scale.settings(method, None))
    target = from_scratch.TARGETS[-1] if shared else TARGET
    if method.name not in GRID:
        return Cell(NAME, tier, method.name, scale.settings(method, target))
    top_k, theta = GRID[method.name]
    reference = MethodRef(method.name, CLASS)
    return Cell(NAME, tier, method.name, scale.settings(reference, target, top_k=top_k, importance_threshold=theta))


EXPERIMENT = Experiment(
    name=NAME,
    question="K in 10, 30, 50 % and theta in 70, 90, 95 %, from scratch and on a trained model, to one final size",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=1.3, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=6, machine="one H200-class GPU"),
    },
    methods=(*GRID, CONTROL),
    cells=cells,
    sources=lambda tier: SCALES[tier][0].sources,
    absent={"paper": "the paper fine-tunes a LLaMA-7B; tier gpu has GPT-2-Small, trained here"},
)

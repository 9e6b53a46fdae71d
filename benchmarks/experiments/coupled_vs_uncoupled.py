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

What part of the method earns what: alignment (ecospa vs. uncoupled), joint importance (vs. uncoupled_importance), the
choice of indices (vs. random_indices), of pairs (vs. uniform_pairs, random_pairs), the gradual way (vs. the two single
cuts), and the shape that it ends with (vs. final_shape).

Controls, dense from the first step to the last:

- dense: equal steps.
- small_dense: equal final size and steps. small_dense_equal_flops: trained on until it has cost as much as ecospa.
- dense_average_size: as large as ecospa is on average over its steps.
- final_shape: a fresh model with ecospa's final widths, equal steps; final_shape_other_seed with those of another
  seed; final_shape_equal_flops trained on until it has cost as much as ecospa.

Command: python -m benchmarks run coupled_vs_uncoupled --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.08 (29 runs, 2 cores), cpu 6 (156 runs, 2 cores), gpu 2 (99 runs, one H100-class
GPU), paper 420 (99 runs, one H200-class GPU).

Data: smoke: docstrings of the installed packages. cpu and gpu: OpenDocs, from the mirror that ECOSPA_DATA names; cpu
takes 20 tokens per block parameter (specs/from_scratch.py), eight seeds at 30 % and three at 50 %. paper: WikiText-103,
50 epochs, GPT-2 Small, 1024 tokens, 512 sequences per step, AdamW, learning rate 6e-4.

Expected result: ecospa is ahead of uniform_pairs, random_pairs and small_dense at equal steps, and level with uncoupled
and random_indices: which pairs give way is what counts. If final_shape is as good as ecospa at equal steps, the way
there is worth nothing, and the method finds shapes. The smoke tier shows that everything works and no more.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.from_scratch import CLAIM_SEEDS, RATE, RATES, scale
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.matched import CONTROLS, control_cell
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec

NAME = "coupled_vs_uncoupled"
TARGETS = (0.5, 0.3)
WITHOUT_TARGET = "dense"
ONE_CUT = ("ecospa_at_start", "ecospa_at_end")
OTHER_SEED = "final_shape_other_seed"
METHODS = (
    "ecospa",
    "ecospa_own_pace",
    "uncoupled",
    "uncoupled_importance",
    "random_indices",
    "uniform_pairs",
    "random_pairs",
    "magnitude",
    WITHOUT_TARGET,
    "small_dense",
    *CONTROLS,
    *ONE_CUT,
)
ECOSPA = "baselines.coupled_sparsity:EcoSpa"
NO_CLAIM = ("ecospa_own_pace", "magnitude")
"""Arms of tier cpu with three seeds at either target."""
AT_HALF = ("ecospa", "uncoupled", "random_pairs", "uniform_pairs", "magnitude", "small_dense", "uncoupled_importance",
           "small_dense_equal_flops", "final_shape", "final_shape_equal_flops")  # fmt: skip
"""Arms of tier cpu at its larger target, where three seeds repeat what eight decide at the smaller one."""


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
    "cpu": scale(),
    "gpu": Scale(
        ModelSpec(layers=6, width=384, heads=6, vocabulary=4096, positions=256),
        DataSpec("opendocs", "default", evaluation_tokens=500_000),
        ProtocolSpec("bpe-4096", sequence_length=256, stride=255, split="validation"),
        TrainingSpec(
            steps=1600, batch_size=128, learning_rate=2e-3, micro_batch_size=128, warmup_steps=100, precision="bf16",
            device="cuda",
        ),
        start_step=200,
        end_step=1200,
        interval=25,
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
    """Every method at every target, and the dense model once; fewer at the larger target of tier cpu and at smoke."""
    wanted: list[tuple[MethodRef, float | None]] = [
        (method, target)
        for target in TARGETS
        for method in methods
        if method.name != WITHOUT_TARGET and not _left_out(tier, method, target)
    ]
    wanted += [(method, None) for method in methods if method.name == WITHOUT_TARGET]
    return tuple(cell(tier, method, target) for method, target in wanted)


def cell(tier: Tier, method: MethodRef, target: float | None) -> Cell:
    """One cell; other experiments of tier cpu take theirs from here, where they have the same.

    Args:
        tier: of the run.
        method: an arm.
        target: share of the block parameters that is left; None for the dense model.
    """
    own = SCALES[tier] if tier != "cpu" else scale(RATES.get(method.name, RATE))
    seeds = CLAIM_SEEDS if tier == "cpu" and target != TARGETS[0] and method.name not in NO_CLAIM else None
    if method.name in CONTROLS:
        return control_cell(method.name, own, cell(tier, MethodRef("ecospa"), target), seeds)
    reference, shrink = one_cut(own, method)
    return Cell(NAME, tier, method.name, own.settings(reference, target, **shrink), seeds)


def one_cut(own: Scale, method: MethodRef) -> tuple[MethodRef, dict[str, int]]:
    """Class and schedule of a method; two arms are EcoSpa with one event, where those of the others begin or end."""
    if method.name not in ONE_CUT:
        return method, {}
    step = own.end_step if method.name == "ecospa_at_end" else own.start_step + own.interval
    return MethodRef(method.name, ECOSPA), {"start_step": step - own.interval, "end_step": step}


def _left_out(tier: Tier, method: MethodRef, target: float) -> bool:
    if tier == "smoke":  # one seed has no other, and the single cuts go to one target only
        return method.name == OTHER_SEED or (method.name in ONE_CUT and target != TARGETS[0])
    return tier == "cpu" and target == TARGETS[0] and method.name in METHODS and method.name not in AT_HALF


EXPERIMENT = Experiment(
    name=NAME,
    question="GPT-2 from scratch to 50 % and 30 %: aligned removal by joint scores vs. uncoupled, random and dense",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.08, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=6, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=2, machine="one H100-class GPU", memory=9),
        "paper": TierPlan(seeds=(0, 1, 2), hours=420, machine="one H200-class GPU", memory=46, data=0.3, disk=7),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier].sources,
    worth=lambda cell: (
        2
        * (
            cell.settings.target in (None, min(TARGETS))
            and cell.method in (WITHOUT_TARGET, "ecospa", "small_dense", "random_pairs")
        )
    ),
)

"""Importance-metric ablation: empirical Fisher information vs. other measures of which pairs to cut.

What it tests: EcoSpa with everything as it is (index scores, K, theta, size curve, surgery) but the importance by which
an event chooses its pairs, or one switch of EcoSpaConfig. Same size at the same step for all, so the choice alone
differs:

- ecospa: empirical Fisher information, the paper's measure.
- importance_gradient, importance_weight, importance_taylor: mean absolute gradient, root mean square of the weights,
  first-order Taylor |w g|.
- importance_activation, importance_entropy: what flows between the matrices; how focused the attention is
  (feed-forward pairs, which have no attention, by Fisher among themselves).
- importance_random: pairs at random. The floor that a measure must beat.
- ecospa_weight_norm, ecospa_by_kind: Fisher times the mean square of the weights, which scaling a matrix leaves alone;
  Fisher divided by the mean of the pair's kind. (importance_scale="first_order" is importance_taylor.)
- ecospa_k_within_kind: K of the query/key, of the value/output and of the feed-forward pairs, each among themselves.
- ecospa_min_share: no pair below 15 % of its dense width, against the collapse of single layers.
- ecospa_units: units of all pairs ranked together by first-order effect per parameter, instead of K pairs by theta.

Controls: dense (equal steps), small_dense (equal final size, that size from the first step on), at tier cpu
uniform_pairs and random_pairs, too; there they and ecospa are those of coupled_vs_uncoupled, run once.

Command: python -m benchmarks run importance_metrics --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.03 (16 runs), cpu 3.5 (128 runs, 40 of them shared, 2 cores), gpu 2.5 (48 runs,
one H200-class GPU), paper 850 (48 runs, one H200-class GPU).

Data: at tier cpu those of coupled_vs_uncoupled (specs/from_scratch.py), at 30 % of the blocks, eight seeds; otherwise
those of gpt2_pretraining, at tier paper GPT-2-Small.

Expected result: the measures cut very different pairs (the table shows the widths that are left by kind), and the
perplexities are closer together than those widths. A measure that is level with importance_random chooses nothing. The
smoke tier shows that everything works; its order means nothing.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import coupled_vs_uncoupled
from benchmarks.experiments.gpt2_pretraining import SCALES
from benchmarks.specs.from_scratch import CLAIM_SEEDS, TARGETS, scale

NAME = "importance_metrics"
TARGET = 0.36
"""Share of the block parameters: what GPT-2-Medium keeps of its blocks when it gets 2.2 times smaller."""
MEASURES = (
    "importance_gradient",
    "importance_taylor",
    "importance_weight",
    "importance_activation",
    "importance_entropy",
    "importance_random",
)
SWITCHES = (
    "ecospa_weight_norm",
    "ecospa_by_kind",
    "ecospa_k_within_kind",
    "ecospa_min_share",
    "ecospa_units",
)
SHARED = ("ecospa", "dense", "small_dense", "uniform_pairs", "random_pairs")
"""At tier cpu cells of coupled_vs_uncoupled."""
METHODS = ("ecospa", *MEASURES, *SWITCHES, "dense", "small_dense", "uniform_pairs", "random_pairs")


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every measure and every switch at the one size, and the controls."""
    return tuple(_cell(tier, method) for method in methods)


def _cell(tier: Tier, method: MethodRef) -> Cell:
    size = TARGET if tier != "cpu" else TARGETS[-1]
    target = None if method.name == "dense" else size
    if tier != "cpu":
        return Cell(NAME, tier, method.name, SCALES[tier][0].settings(method, target))
    if method.name in SHARED:
        return coupled_vs_uncoupled.cell(tier, method, target)
    return Cell(NAME, tier, method.name, scale().settings(method, target), CLAIM_SEEDS)


EXPERIMENT = Experiment(
    name=NAME,
    question="pairs chosen by Fisher, gradient, weight, Taylor, activation, entropy, at random; switches of the config",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.03, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=3.5, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=2.5, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=850, machine="one H200-class GPU", memory=46, data=0.3, disk=7),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier][0].sources,
)

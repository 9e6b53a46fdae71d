"""Importance-metric ablation: empirical Fisher information vs. other measures of which pairs to cut.

What it tests: EcoSpa with everything as it is (index scores, K, theta, size curve, surgery) but the importance by which
an event chooses its pairs. Same size at the same step for all, so the choice alone differs:

- ecospa: empirical Fisher information, the paper's measure.
- importance_gradient, importance_weight, importance_taylor: mean absolute gradient, root mean square of the weights,
  first-order Taylor |w g|.
- importance_activation, importance_entropy: what flows between the matrices; how focused the attention is
  (feed-forward pairs, which have no attention, by Fisher among themselves).
- importance_random: pairs at random. The floor that a measure must beat.

Two controls: dense (equal steps) and small_dense (equal final size, that size from the first step on).

Command: python -m benchmarks run importance_metrics --tier cpu

Hours for all runs of a tier: smoke 0.02 (9 runs), cpu 0.7 (27 runs, 2 cores), gpu 1.5 (27 runs, one H200-class GPU),
paper 500 (27 runs, one H200-class GPU).

Data: those of gpt2_pretraining; at tier paper GPT-2-Small.

Expected result: the measures cut very different pairs (the table shows the widths that are left by kind), and the
perplexities are close together all the same: the size curve decides most. If importance_random is level with Fisher,
the choice of pairs does not matter at this scale, whatever it is made by; that would be a result. The smoke tier
shows that everything works; its order means nothing.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments.gpt2_pretraining import SCALES

NAME = "importance_metrics"
TARGET = 0.36
"""Share of the block parameters: what GPT-2-Medium keeps of its blocks when it gets 2.2 times smaller."""
METHODS = (
    "ecospa",
    "importance_gradient",
    "importance_taylor",
    "importance_weight",
    "importance_activation",
    "importance_entropy",
    "importance_random",
    "dense",
    "small_dense",
)


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every measure at the one size, on the first model of gpt2_pretraining."""
    scale = SCALES[tier][0]
    return tuple(
        Cell(NAME, tier, method.name, scale.settings(method, None if method.name == "dense" else TARGET))
        for method in methods
    )


EXPERIMENT = Experiment(
    name=NAME,
    question="pairs chosen by Fisher, gradient, weight, Taylor, activation, attention entropy, or at random",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.7, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=1.5, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=500, machine="one H200-class GPU", memory=46, data=0.3, disk=7),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier][0].sources,
)

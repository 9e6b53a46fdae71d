"""Learning rates of the arms that tier cpu trains from scratch, chosen on the validation text.

What it tests: nothing about the method. A comparison at one rate favours the arm whose rate it is, so every arm of
coupled_vs_uncoupled is trained with three rates or more, a factor of two apart, on the scale of all from-scratch
experiments (20 tokens per block parameter). The rate with the lowest perplexity on the validation split is the arm's
own in the experiments that report, which measure on the test split.

Arms of one size curve that differ only in which pairs or indices they remove share EcoSpa's rate, masked ones that of
uncoupled: the table shows how flat the minimum is.

Command: python -m benchmarks run learning_rates --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: cpu 1 (24 runs, 2 cores).

Data: OpenDocs, from the mirror that ECOSPA_DATA names.

Expected result: one rate, or two neighbours, for all arms; a minimum at the edge asks for another rate.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.from_scratch import TARGETS, scale, schedule

NAME = "learning_rates"
RATES = (4e-3, 8e-3, 1.6e-2)
TARGET = TARGETS[-1]
WITHOUT_TARGET = ("dense",)
METHODS = ("dense", "small_dense", "ecospa", "random_pairs", "uncoupled", "ecospa_at_start", "ecospa_at_end")


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every arm at every rate."""
    return tuple(_cell(tier, method, rate) for method in methods for rate in RATES)


def _cell(tier: Tier, method: MethodRef, rate: float) -> Cell:
    made = scale(rate, split="validation")
    reference, shrink = schedule(method, made)
    target = None if method.name in WITHOUT_TARGET else TARGET
    return Cell(NAME, tier, method.name, made.settings(reference, target, **shrink))


EXPERIMENT = Experiment(
    name=NAME,
    question="which learning rate each arm of the from-scratch comparisons wants, on the validation text",
    tiers={"cpu": TierPlan(seeds=(0,), hours=1, machine="2 cores, 8 GB")},
    methods=METHODS,
    cells=cells,
    sources=lambda tier: scale(RATES[0]).sources,
    absent={
        "smoke": "nothing is decided there",
        "gpu": "rates of that tier are those published for its models",
        "paper": "rates of that tier are the published ones",
    },
)

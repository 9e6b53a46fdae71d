"""Learning rates of the arms that tier cpu trains from scratch, chosen on the validation text.

What it tests: nothing about the method. A comparison at one rate favours the arm whose rate it is, so every arm of
coupled_vs_uncoupled and of llama_pretraining is trained with three rates, a factor of two apart, on the scale of all
from-scratch experiments (20 tokens per block parameter). The rate with the lowest perplexity on the validation
split is the arm's own in the experiments that report, which measure on the test split.

Command: python -m benchmarks run learning_rates --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: cpu 1.4 (63 runs, 2 cores).

Data: OpenDocs, from the mirror that ECOSPA_DATA names.

Expected result: one rate, or two neighbours, for all arms; a minimum at the edge asks for another rate.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import coupled_vs_uncoupled
from benchmarks.experiments.coupled_vs_uncoupled import NO_CLAIM, OTHER_SEED, one_cut
from benchmarks.specs.from_scratch import RATE, TARGETS, llama_scale, scale
from benchmarks.specs.matched import CONTROLS, control_cell

NAME = "learning_rates"
RATES, LLAMA_RATES = (4e-3, 8e-3, 1.6e-2), (2e-3, 4e-3, 8e-3)
TARGET, LLAMA_TARGET = TARGETS[-1], TARGETS[0]
WITHOUT_TARGET = ("dense", "galore", "low_rank", "lora", "relora")
LLAMA = ("galore", "low_rank", "lora", "relora", "dense", "small_dense", "ecospa")
"""Arms of llama_pretraining; its other controls are small dense models and have the rate of that one."""
OF_LLAMA_ALONE = ("galore", "low_rank", "lora", "relora")
METHODS = (*(name for name in coupled_vs_uncoupled.METHODS if name not in (*NO_CLAIM, OTHER_SEED)), *OF_LLAMA_ALONE)


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every arm at every rate, on the GPT-2 and the LLaMA that have it."""
    gpt2 = [_cell(tier, method, rate) for method in methods if method.name not in OF_LLAMA_ALONE for rate in RATES]
    llama = [_llama_cell(tier, method, rate) for method in methods if method.name in LLAMA for rate in LLAMA_RATES]
    return (*gpt2, *llama)


def _cell(tier: Tier, method: MethodRef, rate: float) -> Cell:
    made = scale(rate, split="validation")
    if method.name in CONTROLS:
        # to the run that is reported on: EcoSpa at another rate ends in another shape
        return control_cell(method.name, made, _cell(tier, MethodRef("ecospa"), RATE))
    reference, shrink = one_cut(made, method)
    target = None if method.name in WITHOUT_TARGET else TARGET
    return Cell(NAME, tier, method.name, made.settings(reference, target, **shrink))


def _llama_cell(tier: Tier, method: MethodRef, rate: float) -> Cell:
    target = None if method.name in WITHOUT_TARGET else LLAMA_TARGET
    return Cell(NAME, tier, method.name, llama_scale(rate, split="validation").settings(method, target))


EXPERIMENT = Experiment(
    name=NAME,
    question="which learning rate each arm of the from-scratch comparisons wants, on the validation text",
    tiers={"cpu": TierPlan(seeds=(0,), hours=1.4, machine="2 cores, 8 GB")},
    methods=METHODS,
    cells=cells,
    sources=lambda tier: scale().sources,
    absent={
        "smoke": "nothing is decided there",
        "gpu": "rates of that tier are those published for its models",
        "paper": "rates of that tier are the published ones",
    },
)

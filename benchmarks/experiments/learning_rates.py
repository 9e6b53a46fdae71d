"""Learning rates of the arms that tier cpu trains from scratch, chosen on validation data.

What it tests: nothing about the method. A comparison at one rate favours the arm whose rate it is, so every arm of
coupled_vs_uncoupled and of llama_pretraining, and the arms of vit_cifar10 and deit_imagenet that may want another one,
are trained with three rates, a factor of two apart, on the scale of all from-scratch experiments (at least 20 tokens
per block parameter); arms whose authors give a rate, around that. The rate with the lowest loss on the validation split
is the arm's own in the experiments that report, which measure on the test split.

Command: python -m benchmarks run learning_rates --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: cpu 3 (117 runs, 2 cores).

Data: OpenDocs, and CIFAR-10 without its test images, from the mirror that ECOSPA_DATA names.

Expected result: one rate, or two neighbours, for all arms; a minimum at the edge asks for another rate.
"""

from __future__ import annotations

from benchmarks.data.examples import HELD_OUT
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import coupled_vs_uncoupled
from benchmarks.experiments.coupled_vs_uncoupled import NO_CLAIM, OTHER_SEED, one_cut
from benchmarks.experiments.llama_pretraining import PEERS
from benchmarks.specs.from_scratch import IMAGE_RATE, LLAMA_RATE, RATE, TARGETS, image_scale, llama_scale, scale
from benchmarks.specs.matched import CONTROLS, control_cell
from benchmarks.specs.scale import Scale

NAME = "learning_rates"
RATES, LLAMA_RATES, IMAGE_RATES = (4e-3, 8e-3, 1.6e-2), (2e-3, 4e-3, 8e-3), (1e-3, 2e-3, 4e-3)
TARGET, LLAMA_TARGET, IMAGE_TARGET = TARGETS[-1], TARGETS[0], TARGETS[0]
LLAMA_RATES_OF = {
    **dict.fromkeys(("apollo", "apollo_mini", "fira", "conda"), (5e-3, 1e-2, 2e-2)),
    **dict.fromkeys(("alice", "racs", "scale"), (1e-3, 2e-3, 4e-3)),
}
"""Rates of arms of LLaMA whose authors train at 0.01, and at 0.001; the others have LLAMA_RATES."""
OF_LLAMA_ALONE = ("galore", "low_rank", "lora", "relora", *PEERS)
WITHOUT_TARGET = ("dense", *OF_LLAMA_ALONE)
LLAMA = (*OF_LLAMA_ALONE, "dense", "small_dense", "ecospa")
"""Arms of llama_pretraining; its other controls are small dense models and have the rate of that one."""
IMAGES = ("dense", "small_dense", "small_dense_equal_flops", "ecospa", "magnitude", "svite")
"""Arms on images; others that shrink have EcoSpa's rate there, other small models that of the small dense one."""
OF_IMAGES_ALONE = ("magnitude", "svite")
GPT2 = tuple(name for name in coupled_vs_uncoupled.METHODS if name not in (*NO_CLAIM, OTHER_SEED))
METHODS = (*GPT2, *OF_LLAMA_ALONE, *OF_IMAGES_ALONE)


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every arm at every rate, on the GPT-2, the LLaMA and the ViT that have it; a method that is added, on GPT-2."""
    others = (*OF_LLAMA_ALONE, *OF_IMAGES_ALONE)
    gpt2 = [_cell(tier, method, rate) for method in methods if method.name not in others for rate in RATES]
    llama = [
        _llama_cell(tier, method, rate)
        for method in methods
        if method.name in LLAMA
        for rate in LLAMA_RATES_OF.get(method.name, LLAMA_RATES)
    ]
    images = [_image_cell(tier, method, rate) for method in methods if method.name in IMAGES for rate in IMAGE_RATES]
    return (*gpt2, *llama, *images)


def _cell(tier: Tier, method: MethodRef, rate: float) -> Cell:
    return _arm(tier, method, scale(rate, split="validation"), TARGET, scale(RATE, split="validation"))


def _llama_cell(tier: Tier, method: MethodRef, rate: float) -> Cell:
    made, usual = (llama_scale(value, split="validation") for value in (rate, LLAMA_RATE))
    return _arm(tier, method, made, LLAMA_TARGET, usual)


def _image_cell(tier: Tier, method: MethodRef, rate: float) -> Cell:
    made, usual = (image_scale(value, split=HELD_OUT) for value in (rate, IMAGE_RATE))
    return _arm(tier, method, made, IMAGE_TARGET, usual)


def _arm(tier: Tier, method: MethodRef, made: Scale, target: float, usual: Scale) -> Cell:
    """One arm at one rate; controls are matched to EcoSpa at its own, because its shape differs with the rate."""
    if method.name in CONTROLS:
        return control_cell(method.name, made, _arm(tier, MethodRef("ecospa"), usual, target, usual))
    reference, shrink = one_cut(made, method)
    size = None if method.name in WITHOUT_TARGET else target
    return Cell(NAME, tier, method.name, made.settings(reference, size, **shrink))


EXPERIMENT = Experiment(
    name=NAME,
    question="which learning rate each arm of the from-scratch comparisons wants, on validation data",
    tiers={"cpu": TierPlan(seeds=(0,), hours=3, machine="2 cores, 8 GB")},
    methods=METHODS,
    cells=cells,
    sources=lambda tier: (*scale().sources, *image_scale().sources),
    absent={
        "smoke": "nothing is decided there",
        "gpu": "rates of that tier are those published for its models",
        "paper": "rates of that tier are the published ones",
    },
)

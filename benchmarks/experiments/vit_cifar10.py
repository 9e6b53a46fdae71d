"""ViT on CIFAR-10 from scratch, at half and at 30 % of its blocks: selection rules vs. random choice on images.

What it tests: the earlier version of the paper has a CIFAR-10 table whose content is not known; this one asks what can
be asked without it, at sparsities of 50 and 70 %, which are read as 50 % and 30 % of the block parameters left. All
methods that shrink follow the same size over steps, as in coupled_vs_uncoupled: ecospa, random_pairs (the floor that a
selection rule must beat) and magnitude (single weights masked, nothing becomes faster). Two controls: dense at equal
steps, small_dense at equal size; tier cpu has those of coupled_vs_uncoupled, which says there what they are.

Command: python -m benchmarks run vit_cifar10 --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.02 (9 runs), cpu 1.8 (66 runs, 2 cores), gpu 3 (27 runs, one H200-class GPU),
paper 40 (27 runs, likewise).

Data: smoke: scikit-learn's digits, 8x8 pixels. Others: CIFAR-10, from the mirror that ECOSPA_DATA names or the Hub.
cpu: the scale of all from-scratch experiments (specs/from_scratch.py), four narrow layers and four epochs of all 50,000
images, 65 tokens per block parameter: enough for size to matter, far from what a ViT can do.
paper: six layers of ViT-Tiny's width for 200 epochs, for which 90.5 % are published for the dense model (HiAP).

Expected result: at 50 % all methods near dense; at 30 % ecospa ahead of random_pairs and level with small_dense. The
smoke tier shows that everything works; its order means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments.coupled_vs_uncoupled import ONE_CUT, OTHER_SEED, one_cut
from benchmarks.specs.from_scratch import IMAGE_RATE, image_scale
from benchmarks.specs.matched import CONTROLS, control_cell
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec
from benchmarks.specs.vision import AugmentationSpec, ImageDataSpec, ImageProtocolSpec, VisionModelSpec

NAME = "vit_cifar10"
TARGETS = (0.5, 0.3)
WITHOUT_TARGET = "dense"
PLAIN = (WITHOUT_TARGET, "small_dense", "ecospa", "random_pairs", "magnitude")
"""Methods of every tier; the others are controls that tier cpu has, where a run takes minutes."""
METHODS = (*PLAIN, "uniform_pairs", *CONTROLS, *ONE_CUT)
SMALLER_ONLY = (OTHER_SEED, *ONE_CUT)
"""Controls of the smaller target alone."""
RATES: Mapping[str, float] = MappingProxyType({})
"""Learning rates of arms that did best with another one than IMAGE_RATE (experiment learning_rates)."""
LIGHT = AugmentationSpec(crop="pad", flip=0.5)

SCALES: dict[Tier, Scale] = {
    "smoke": Scale(
        VisionModelSpec("vit_tiny_patch16_224", layers=2, width=64, heads=4, patch=4, size=8, classes=10),
        ImageDataSpec("digits", "default"),
        ImageProtocolSpec("test"),
        TrainingSpec(steps=100, batch_size=32, learning_rate=3e-3, micro_batch_size=32, warmup_steps=10),
        start_step=10, end_step=76, interval=3, width_multiple=4,
    ),
    "cpu": image_scale(),
    "gpu": Scale(
        VisionModelSpec("vit_tiny_patch16_224", layers=12, width=192, heads=3, patch=4, size=32, classes=10),
        ImageDataSpec("cifar10", "plain_text"),
        ImageProtocolSpec("test", LIGHT),
        TrainingSpec(
            steps=9750, batch_size=256, learning_rate=1e-3, micro_batch_size=256, warmup_steps=500, weight_decay=0.05,
            precision="bf16", device="cuda",
        ),
        start_step=500, end_step=7300, interval=170, width_multiple=8,
    ),
    "paper": Scale(
        VisionModelSpec(
            "vit_tiny_patch16_224", layers=6, width=192, heads=3, patch=4, size=32, classes=10, drop_path=0.1
        ),
        ImageDataSpec("cifar10", "plain_text"),
        ImageProtocolSpec("test", AugmentationSpec(crop="pad", flip=0.5, policy="rand-m9-mstd0.5-inc1", smoothing=0.1)),
        TrainingSpec(
            steps=78_000, batch_size=128, learning_rate=1e-3, micro_batch_size=128, warmup_steps=3900,
            weight_decay=0.05, precision="bf16", device="cuda",
        ),
        start_step=3900, end_step=58_500, interval=1365, width_multiple=8,
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """The dense model once, every other method at every target; the controls at tier cpu alone, some at one target."""
    return tuple(
        cell(tier, method, target)
        for method in methods
        for target in ((None,) if method.name == WITHOUT_TARGET else TARGETS)
        if not _left_out(tier, method, target)
    )


def cell(tier: Tier, method: MethodRef, target: float | None) -> Cell:
    """One cell; deit_imagenet takes those of tier cpu from here that it has, too.

    Args:
        tier: of the run.
        method: an arm.
        target: share of the block parameters that is left; None for the dense model.
    """
    own = SCALES[tier] if tier != "cpu" else image_scale(RATES.get(method.name, IMAGE_RATE))
    if method.name in CONTROLS:
        return control_cell(method.name, own, cell(tier, MethodRef("ecospa"), target))
    reference, shrink = one_cut(own, method)
    return Cell(NAME, tier, method.name, own.settings(reference, target, **shrink))


def _left_out(tier: Tier, method: MethodRef, target: float | None) -> bool:
    if tier != "cpu":
        return method.name in METHODS and method.name not in PLAIN
    return target == TARGETS[0] and method.name in SMALLER_ONLY


EXPERIMENT = Experiment(
    name=NAME,
    question="ViT on CIFAR-10 from scratch at 50 % and 30 % of its blocks: EcoSpa, random, mask, small, dense",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=1.8, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=3, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=40, machine="one H200-class GPU", memory=0.5, data=0.2, disk=1),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier].sources,
)

"""DeiT from scratch at half of its blocks: EcoSpa compared with S2ViTE, masks, a small DeiT and the dense one.

What it tests: the paper evaluates DeiT on ImageNet-1k; its numbers are not known, nor whether it starts from a
checkpoint. Here every model starts from scratch with DeiT's recipe, as S2ViTE's do. Compared at equal final size:
ecospa and magnitude shrink along one curve, svite has the target size from the first step and exchanges heads and
neurons, small_dense has it and never changes. dense is the control at equal steps. At tier cpu a DeiT without its
teacher is the ViT of vit_cifar10, whose runs at this size, controls among them, are shown here beside svite's own. The
other tiers leave those controls to that experiment: at tier paper each costs 4,800 hours.

Deviation: no repeated augmentation, no moving average of weights; weight decay acts on position embeddings, too.

Command: python -m benchmarks run deit_imagenet --tier cpu

Hours for all runs of a tier: smoke 0.02 (5 runs), cpu 0.1 (3 runs of its own, 2 cores), gpu 2 (15 runs, one H200-class
GPU), paper 24,000 (45 runs, likewise).
Images of ImageNet are decoded and augmented in the training process, which takes most of tier paper's hours.

Data: smoke: scikit-learn's digits, with a distillation token and a teacher trained first. cpu and gpu: CIFAR-10, from
the mirror that ECOSPA_DATA names or the Hub. gpu distils at DeiT-T's size. In tier cpu a teacher would cost more than
its student and the strong augmentation needs many more epochs, so both are left out. paper: ImageNet-1k, DeiT-T, -S and
-B.

Expected result: ecospa near small_dense and svite, all below dense by a few points; magnitude above them, because it
keeps the shapes of the dense model and its costs. The smoke tier shows that everything works; its order means nothing.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import vit_cifar10
from benchmarks.specs.from_scratch import image_scale
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec
from benchmarks.specs.vision import AugmentationSpec, ImageDataSpec, ImageProtocolSpec, TeacherSpec, VisionModelSpec

NAME = "deit_imagenet"
TARGETS = (0.5,)
WITHOUT_TARGET = "dense"
PLAIN = (WITHOUT_TARGET, "small_dense", "svite", "magnitude", "ecospa")
"""Methods of every tier; the others are controls that tier cpu has, where a run takes minutes."""
SHARED = tuple(name for name in vit_cifar10.METHODS if name not in vit_cifar10.SMALLER_ONLY)
"""Arms of tier cpu that are those of vit_cifar10, run once and recorded there."""
METHODS = (*PLAIN, *(name for name in SHARED if name not in PLAIN))
RECIPE = AugmentationSpec(
    crop="resized", flip=0.5, policy="rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0, smoothing=0.1
)
"""DeiT's own (arXiv 2012.12877, Table 9)."""
SMALL_RECIPE = AugmentationSpec(
    crop="pad", flip=0.5, policy="rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0, smoothing=0.1
)


def _imagenet(size: str, width: int, heads: int) -> Scale:
    """300 epochs of 1,281,167 images in batches of 1,024; the model has its final size after three quarters of them."""
    return Scale(
        VisionModelSpec(
            f"deit_{size}_patch16_224", layers=12, width=width, heads=heads, patch=16, size=224, classes=1000,
            drop_path=0.1,
        ),
        ImageDataSpec("imagenet", "default"),
        ImageProtocolSpec("validation", RECIPE),
        TrainingSpec(
            steps=375_300, batch_size=1024, learning_rate=1e-3, micro_batch_size=256, warmup_steps=6255,
            weight_decay=0.05, max_grad_norm=0.0, precision="bf16", device="cuda",
        ),
        start_step=6255, end_step=281_475, interval=6880, width_multiple=8,
    )  # fmt: skip


SCALES: dict[Tier, tuple[Scale, ...]] = {
    "smoke": (
        Scale(
            VisionModelSpec(
                "deit_tiny_distilled_patch16_224", layers=2, width=48, heads=3, patch=4, size=8, classes=10,
                drop_path=0.05,
            ),
            ImageDataSpec("digits", "default"),
            ImageProtocolSpec(
                "test", AugmentationSpec(mixup=0.2, smoothing=0.1), TeacherSpec("resnet10t", steps=40, batch_size=32)
            ),
            TrainingSpec(steps=100, batch_size=32, learning_rate=3e-3, micro_batch_size=32, warmup_steps=10),
            start_step=10, end_step=76, interval=3, width_multiple=4,
        ),
    ),
    "cpu": (image_scale(),),
    "gpu": (
        Scale(
            VisionModelSpec(
                "deit_tiny_distilled_patch16_224", layers=12, width=192, heads=3, patch=4, size=32, classes=10,
                drop_path=0.1,
            ),
            ImageDataSpec("cifar10", "plain_text"),
            ImageProtocolSpec(
                "test", SMALL_RECIPE, TeacherSpec("resnet26", steps=4000, batch_size=256, learning_rate=1e-3)
            ),
            TrainingSpec(
                steps=5850, batch_size=256, learning_rate=1e-3, micro_batch_size=256, warmup_steps=300,
                weight_decay=0.05, precision="bf16", device="cuda",
            ),
            start_step=300, end_step=4400, interval=100, width_multiple=8,
        ),
    ),
    "paper": (_imagenet("tiny", 192, 3), _imagenet("small", 384, 6), _imagenet("base", 768, 12)),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """For every model of the tier: the dense model once, every other method at every target."""
    return tuple(
        _cell(tier, scale, method, target)
        for scale in SCALES[tier]
        for method in methods
        if tier == "cpu" or method.name in PLAIN or method.name not in METHODS
        for target in ((None,) if method.name == WITHOUT_TARGET else TARGETS)
    )


def _cell(tier: Tier, scale: Scale, method: MethodRef, target: float | None) -> Cell:
    if tier == "cpu" and method.name in SHARED:
        return vit_cifar10.cell(tier, method, target)
    return Cell(NAME, tier, method.name, scale.settings(method, target))


EXPERIMENT = Experiment(
    name=NAME,
    question="DeiT from scratch at half of its blocks: EcoSpa vs. S2ViTE, masks, a small and the dense model",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.1, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=2, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=24_000, machine="one H200-class GPU", memory=19, data=167, disk=340),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier][0].sources,
)

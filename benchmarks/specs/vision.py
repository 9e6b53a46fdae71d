"""Settings of the runs on images; a plan reads them, so nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class AugmentationSpec:
    """Augmentation of training images; none by default.

    Attributes:
        crop: "none"; "pad" cuts the image out of itself with a border of an eighth around it (small images); "resized"
            cuts out 8 to 100 % of it and resizes that (large images).
        flip: share of images mirrored left to right.
        policy: timm's name of an automatic policy, such as "rand-m9-mstd0.5-inc1" (RandAugment), or "".
        erase: share of images of which a random rectangle becomes noise.
        mixup, cutmix: alpha of the mixing of two images and their labels; a batch gets one of the two; 0 for none.
        smoothing: share of a label that goes to all classes alike.
    """

    crop: str = "none"
    flip: float = 0.0
    policy: str = ""
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.crop not in ("none", "pad", "resized"):
            raise ValueError(f"crop is {self.crop!r}; choose none, pad or resized")
        for name in ("flip", "erase", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share and must be in [0, 1]")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0, and 0 means none")


@dataclass(frozen=True)
class TeacherSpec:
    """Settings of a teacher.

    Attributes:
        name: an architecture of timm, or a name of published weights, such as "regnety_160.deit_in1k".
        steps: optimizer steps on the run's own images, augmented as the student's are but never mixed; 0: published
            weights, which know the same classes and the same normalisation.
        batch_size, learning_rate: of these steps: AdamW, one cosine cycle.
    """

    name: str
    steps: int = 0
    batch_size: int = 64
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; it must be at least 0, and 0 means published weights")


@dataclass(frozen=True)
class VisionModelSpec:
    """A VisionTransformer of timm trained from scratch.

    Attributes:
        name: timm's name of an architecture, such as "deit_tiny_patch16_224"; the sizes below replace its own.
        layers, width, heads: of the transformer; the feed-forward part is four times as wide.
        patch: height and width of a patch, in pixels.
        size: height and width of an image; a multiple of `patch`.
        classes: of the data.
        drop_path: share of residual branches skipped in the last block while it trains; less in those before it.
    """

    name: str
    layers: int
    width: int
    heads: int
    patch: int
    size: int
    classes: int
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise ValueError(f"size is {self.size}; it must be a multiple of patch, which is {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}; it must be a multiple of heads, which is {self.heads}")


@dataclass(frozen=True)
class ImageDataSpec:
    """Source of the images: a file of `benchmarks/data`, its configuration, and how many are used (None: all)."""

    source: str
    configuration: str
    train_images: int | None = None
    evaluation_images: int | None = None

    def __post_init__(self) -> None:
        for name in ("train_images", "evaluation_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1, or None for all images")


@dataclass(frozen=True)
class ImageProtocolSpec:
    """Settings of training and judging a classifier: accuracy on whole, unaugmented images of `split`."""

    task: ClassVar[str] = "image_classification"

    split: str
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    teacher: TeacherSpec | None = None

"""From images to what a model is trained on: timm's augmentation, the same for a batch whoever makes it and when.

A Trainer fetches a batch before the step before it has ended, so random numbers drawn from a shared stream would be
others after an interruption. Those of a batch come from the seed and from which examples are in it, in their order;
examples are shuffled anew in every epoch, so that an image hardly ever meets the same numbers twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.data.images import ImageSet, Pictures
from benchmarks.specs.vision import AugmentationSpec

Teacher = Callable[[Tensor], Tensor]
"""Images (batch, 3, size, size) -> logits (batch, classes)."""


class ImageExamples(Dataset[dict[str, Tensor]]):
    """Images and labels to train on.

    `examples[number]` is an image as in evaluation, {"x": float (3, size, size), "labels": int64 ()}. A DataLoader
    asks for whole batches by `__getitems__` and gets augmented ones, whose labels are probabilities: float (classes,),
    or (2, classes) with a teacher, the second row its decision.

    Args:
        pictures: the images.
        images: whose classes and channel statistics are meant.
        size: height and width that the model wants.
        augmentation: of batches.
        seed: of the run.
        teacher: decides about augmented images, or None.
    """

    def __init__(
        self,
        pictures: Pictures,
        images: ImageSet,
        size: int,
        augmentation: AugmentationSpec,
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.pictures, self.seed, self.teacher = pictures, seed, teacher
        self.still = eval_transform(images, size)
        self.moving = _moving_transform(images, size, augmentation)
        self.mix = _mixer(augmentation, images.classes)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"x": self.still(self._picture(number)), "labels": torch.tensor(int(self.pictures.labels[number]))}

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Tensor]]:
        with _random_numbers(self.seed, numbers):
            pixels = torch.stack([self.moving(self._picture(number)) for number in numbers])
            labels = torch.from_numpy(self.pictures.labels[np.asarray(numbers)])
            pixels, targets = self.mix(pixels, labels)
        if self.teacher is not None:
            decided = self.teacher(pixels).argmax(-1)
            targets = torch.stack([targets, torch.nn.functional.one_hot(decided, targets.shape[-1]).float()], dim=1)
        return [{"x": image, "labels": target} for image, target in zip(pixels, targets, strict=True)]

    def _picture(self, number: int) -> Any:
        return as_picture(self.pictures.pixels[number])


def as_picture(pixels: Any) -> Any:
    """A PIL image of a uint8 (height, width, 3) array; one that is a PIL image already stays it."""
    from PIL import Image

    return Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels


def eval_transform(images: ImageSet, size: int) -> Any:
    """PIL image -> normalised float (3, size, size), nothing random: the middle of an image that is not of that size.

    Large images are resized to size / 0.9 before, as DeiT is evaluated; small ones keep all their pixels.
    """
    from timm.data.transforms_factory import create_transform

    made = create_transform(size, interpolation="bicubic", mean=images.mean, std=images.deviation, crop_pct=0.9)
    if _fits(images.train, size):
        del made.transforms[:2]  # resize and crop
    return made


def _moving_transform(images: ImageSet, size: int, augmentation: AugmentationSpec) -> Any:
    from timm.data.transforms_factory import create_transform
    from torchvision import transforms

    made = create_transform(
        size,
        is_training=True,
        hflip=augmentation.flip,
        color_jitter=None,  # type: ignore[arg-type]  # none is what it means, though it is annotated otherwise
        auto_augment=augmentation.policy or None,
        interpolation="bicubic",
        mean=images.mean,
        std=images.deviation,
        re_prob=augmentation.erase,
        re_mode="pixel",
    )
    if augmentation.crop == "pad":
        made.transforms[0] = transforms.RandomCrop(size, padding=size // 8)
    elif augmentation.crop == "none":
        # what comes before an image is a tensor and normalised, in evaluation
        made.transforms[:1] = eval_transform(images, size).transforms[:-2]
    return made


def _fits(pictures: Pictures, size: int) -> bool:
    return isinstance(pictures.pixels, np.ndarray) and pictures.pixels.shape[1:3] == (size, size)


def _mixer(augmentation: AugmentationSpec, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(images, classes) -> (images, probabilities), mixed or only smoothed."""
    from timm.data.mixup import Mixup, mixup_target

    if augmentation.mixup or augmentation.cutmix:
        return Mixup(
            augmentation.mixup, augmentation.cutmix, label_smoothing=augmentation.smoothing, num_classes=classes
        )
    return lambda images, labels: (images, mixup_target(labels, classes, smoothing=augmentation.smoothing))


@contextmanager
def _random_numbers(seed: int, numbers: Sequence[int]) -> Iterator[None]:
    """All random generators start from the seed and the examples' numbers inside, and go on as before after it."""
    state = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    stream_seed = int(np.random.SeedSequence([seed, *(int(number) for number in numbers)]).generate_state(1)[0])
    random.seed(stream_seed)
    np.random.seed(stream_seed)
    torch.default_generator.manual_seed(
        stream_seed
    )  # of the CPU alone: torch.manual_seed would change those of GPUs too
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
